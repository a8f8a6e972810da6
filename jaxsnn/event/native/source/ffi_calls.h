// Conversion between the calls of XLA's foreign function interface and C++ functions, and checks of
// arguments that several kernels share. Each library includes this file once.

#pragma once

#include "tiles.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

using native::Index;

ffi::Error invalid_argument(const std::string& message) {
  return ffi::Error::InvalidArgument("jaxsnn native engine: " + message);
}

bool has_shape(ffi::AnyBuffer buffer, std::initializer_list<Index> shape) {
  auto dimensions = buffer.dimensions();
  return dimensions.size() == shape.size() &&
         std::equal(shape.begin(), shape.end(), dimensions.begin());
}

bool has_type(ffi::AnyBuffer buffer, ffi::DataType type) { return buffer.element_type() == type; }

template <class T>
constexpr ffi::DataType kType = std::is_same_v<T, float> ? ffi::F32 : ffi::F64;

native::Options make_options(std::int64_t max_spikes, std::int64_t max_counted, bool once,
                             bool subtract, double refractory, double min_slope,
                             std::int64_t threads, bool jumps = false) {
  native::Options options;
  options.max_spikes = max_spikes;
  options.max_counted = max_counted;
  options.once = once;
  options.subtract = subtract;
  options.refractory = refractory;
  options.min_slope = min_slope;
  options.jumps = jumps;
  options.threads = std::clamp<Index>(threads, 1, 1024);
  return options;
}

/// Request huge pages for results before they are written.
template <class... Buffers>
void prefer_large_pages(Buffers... results) {
  (native::prefer_large_pages(results.untyped_data(), results.size_bytes()), ...);
}

/// Sort the arrivals into the results. Return the problem, or an empty string.
template <class T>
std::string check_and_sort_arrivals(const native::Population<T>& population, ffi::AnyBuffer time,
                                    ffi::AnyBuffer row, Index threads, ffi::AnyBuffer sorted_time,
                                    ffi::AnyBuffer sorted_row, ffi::AnyBuffer sorted_slot,
                                    ffi::AnyBuffer used, native::SortedArrivals<T>& sorted) {
  const Index batch = population.batch, arrivals = population.arrivals;
  const bool shared = has_shape(row, {arrivals});
  if (!has_type(row, ffi::S32) || !(shared || has_shape(row, {batch, arrivals})))
    return "rows are not (arrivals,) or (batch, arrivals) int32";
  if (!has_shape(sorted_time, {batch, arrivals}) || !has_shape(sorted_row, {batch, arrivals}) ||
      !has_shape(sorted_slot, {batch, arrivals}) || !has_shape(used, {batch}))
    return "a result has the wrong shape";
  native::sort_arrivals(population, time.typed_data<T>(), row.typed_data<std::int32_t>(), shared,
                        threads, sorted_time.typed_data<T>(), sorted_row.typed_data<std::int32_t>(),
                        sorted_slot.typed_data<std::int32_t>(), used.typed_data<std::int32_t>());
  sorted = {sorted_time.typed_data<T>(), sorted_row.typed_data<std::int32_t>(),
            sorted_slot.typed_data<std::int32_t>(), used.typed_data<std::int32_t>(), arrivals};
  return "";
}

/// Arguments, results and attributes of a call, which `next` returns one after the other.
class CallReader {
 public:
  CallReader(ffi::RemainingArgs arguments, ffi::RemainingRets results, ffi::Dictionary attributes,
             const std::string_view* attribute_names)
      : arguments_(arguments),
        results_(results),
        attributes_(attributes),
        attribute_name_(attribute_names) {}

  template <class T>
  T next() {
    if constexpr (std::is_same_v<T, ffi::AnyBuffer>)
      return value_of(arguments_.get<ffi::AnyBuffer>(argument_++));
    else if constexpr (std::is_same_v<T, ffi::Result<ffi::AnyBuffer>>)
      return value_of(results_.get<ffi::AnyBuffer>(result_++));
    else
      return value_of(attributes_.get<T>(*attribute_name_++));
  }

  bool is_complete() const {
    return argument_ == arguments_.size() && result_ == results_.size();
  }

 private:
  template <class T>
  static T value_of(ffi::ErrorOr<T> value) {
    if (!value.has_value()) throw std::invalid_argument(value.error().message());
    return value.value();
  }

  ffi::RemainingArgs arguments_;
  ffi::RemainingRets results_;
  ffi::Dictionary attributes_;
  const std::string_view* attribute_name_;
  std::size_t argument_ = 0, result_ = 0;
};

/// Call of a function whose parameters are read in their order, which braces guarantee.
struct OrderedCall {
  template <class... Parameters>
  OrderedCall(ffi::Error (*function)(Parameters...), const CallReader& reader,
              Parameters... parameters)
      : result(reader.is_complete() ? function(parameters...)
                                    : invalid_argument("too many arguments or results")) {}
  ffi::Error result;
};

/// Call a kernel, and convert exceptions to errors. A binding of XLA that lists each parameter by
/// its type would do the same, and take most of the time of compiling this file.
template <class... Parameters>
ffi::Error call_kernel(ffi::Error (*function)(Parameters...), CallReader reader) {
  try {
    return OrderedCall{function, reader, reader.next<Parameters>()...}.result;
  } catch (const std::bad_alloc&) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted, "jaxsnn native engine: out of memory");
  } catch (const std::exception& error) {
    return ffi::Error::Internal(std::string("jaxsnn native engine: ") + error.what());
  }
}

}  // namespace

/// Define a function for JAX that calls one of the above. Arguments and results are those of the
/// function; attributes are listed by name, in the order of its parameters.
#define HANDLER(symbol, function, ...)                                                          \
  static ffi::Error symbol##_call(ffi::RemainingArgs arguments, ffi::RemainingRets results,     \
                                  ffi::Dictionary attributes) {                                 \
    static constexpr std::string_view kAttributes[] = {__VA_ARGS__};                            \
    return call_kernel(function, CallReader(arguments, results, attributes, kAttributes));      \
  }                                                                                             \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(                                                                \
      symbol, symbol##_call,                                                                    \
      ffi::Ffi::Bind().RemainingArgs().RemainingRets().Attrs<ffi::Dictionary>())
