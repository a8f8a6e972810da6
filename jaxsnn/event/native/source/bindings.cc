// What JAX calls: shapes are checked here, and whatever goes wrong comes back as an error.
//
// Built with NUMBER=float or NUMBER=double: one library for each.

#include "group.h"
#include "readout.h"
#include "scatter.h"
#include "stream_calls.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

using native::Index;

ffi::Error wrong(const std::string& what) {
  return ffi::Error::InvalidArgument("jaxsnn native engine: " + what);
}

/// Runs a kernel; what it throws becomes an error.
template <class Call>
ffi::Error guarded(Call&& call) {
  try {
    return call();
  } catch (const std::bad_alloc&) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted, "jaxsnn native engine: out of memory");
  } catch (const std::exception& error) {
    return ffi::Error::Internal(std::string("jaxsnn native engine: ") + error.what());
  }
}

bool has_shape(ffi::AnyBuffer buffer, std::initializer_list<Index> shape) {
  auto dimensions = buffer.dimensions();
  return dimensions.size() == shape.size() &&
         std::equal(shape.begin(), shape.end(), dimensions.begin());
}

/// Of how many fields of the lanes there is room for a gradient: all, those before the time constants,
/// or none.
Index fields_of(ffi::AnyBuffer by_lanes, Index positions, Index neurons) {
  for (const Index fields : {Index(native::kFields), native::kFieldsWithoutTaus})
    if (has_shape(by_lanes, {fields, positions, neurons})) return fields;
  return 0;
}

bool has_type(ffi::AnyBuffer buffer, ffi::DataType type) { return buffer.element_type() == type; }

template <class T>
constexpr ffi::DataType kType = std::is_same_v<T, float> ? ffi::F32 : ffi::F64;

native::Options options_of(std::int64_t max_spikes, std::int64_t max_counted, bool once, bool subtract,
                           double refractory, double min_slope, std::int64_t threads,
                           bool jumps = false) {
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

/// The common arguments, or what is wrong with them.
template <class T>
std::string given_of(ffi::AnyBuffer weight, ffi::AnyBuffer lanes, ffi::AnyBuffer time,
                     ffi::AnyBuffer t_end, native::Population<T>& population, bool in_lists = true) {
  if (weight.dimensions().size() != 2) return "weight is not (rows, neurons)";
  if (lanes.dimensions().size() != 3) return "lanes are not (fields, positions, neurons)";
  if (time.dimensions().size() != 2) return "time is not (batch, arrivals)";
  population.rows = weight.dimensions()[0];
  population.neurons = weight.dimensions()[1];
  population.positions = lanes.dimensions()[1];
  population.batch = time.dimensions()[0];
  population.arrivals = time.dimensions()[1];
  if (!has_shape(lanes, {native::kFields, population.positions, population.neurons}))
    return "lanes are not (6, positions, neurons)";
  if (population.positions < 1 || (in_lists && population.batch % population.positions)) return "positions do not fit the batch";
  if (!has_shape(t_end, {})) return "t_end is not one number";
  for (auto buffer : {weight, lanes, time, t_end})
    if (!has_type(buffer, kType<T>)) return "the arguments differ in their types";
  if (population.arrivals >= std::numeric_limits<std::int32_t>::max() ||
      population.rows >= std::numeric_limits<std::int32_t>::max())
    return "more than 2^31 arrivals or rows";
  population.weight = weight.typed_data<T>();
  population.parameters = lanes.typed_data<T>();
  population.t_end = *t_end.typed_data<T>();
  return "";
}

/// For results that are about to be written.
template <class... Buffers>
void prefer_large_pages(Buffers... results) {
  (native::prefer_large_pages(results.untyped_data(), results.size_bytes()), ...);
}

/// Puts what arrives in order, into results; or what is wrong with the rows or the results.
template <class T>
std::string in_order(const native::Population<T>& population, ffi::AnyBuffer time, ffi::AnyBuffer row,
                     Index threads, ffi::AnyBuffer sorted_time, ffi::AnyBuffer sorted_row,
                     ffi::AnyBuffer sorted_slot, ffi::AnyBuffer used, native::SortedArrivals<T>& sorted) {
  const Index batch = population.batch, arrivals = population.arrivals;
  const bool shared = has_shape(row, {arrivals});
  if (!has_type(row, ffi::S32) || !(shared || has_shape(row, {batch, arrivals})))
    return "rows are not (arrivals,) or (batch, arrivals) int32";
  if (!has_shape(sorted_time, {batch, arrivals}) || !has_shape(sorted_row, {batch, arrivals}) ||
      !has_shape(sorted_slot, {batch, arrivals}) || !has_shape(used, {batch}))
    return "a result has the wrong shape";
  native::sort_arrivals(population, time.typed_data<T>(), row.typed_data<std::int32_t>(), shared, threads,
                       sorted_time.typed_data<T>(), sorted_row.typed_data<std::int32_t>(),
                       sorted_slot.typed_data<std::int32_t>(), used.typed_data<std::int32_t>());
  sorted = {sorted_time.typed_data<T>(), sorted_row.typed_data<std::int32_t>(),
             sorted_slot.typed_data<std::int32_t>(), used.typed_data<std::int32_t>(), arrivals};
  return "";
}

ffi::Error LayerForward(ffi::AnyBuffer weight, ffi::AnyBuffer lanes, ffi::AnyBuffer time,
                        ffi::AnyBuffer row, ffi::AnyBuffer t_end,
                        ffi::Result<ffi::AnyBuffer> spike_time, ffi::Result<ffi::AnyBuffer> slope,
                        ffi::Result<ffi::AnyBuffer> slope_after, ffi::Result<ffi::AnyBuffer> count,
                        ffi::Result<ffi::AnyBuffer> cause,
                        ffi::Result<ffi::AnyBuffer> sorted_time,
                        ffi::Result<ffi::AnyBuffer> sorted_row,
                        ffi::Result<ffi::AnyBuffer> sorted_slot, ffi::Result<ffi::AnyBuffer> used,
                        std::int64_t max_spikes, std::int64_t max_counted, bool once, bool subtract,
                        double refractory, bool jumps, bool strict, std::int64_t threads) {
  using T = NUMBER;
  return guarded([&]() -> ffi::Error {
    native::Population<T> population;
    std::string problem = given_of<T>(weight, lanes, time, t_end, population);
    if (!problem.empty()) return wrong(problem);
    const Index batch = population.batch, neurons = population.neurons;
    if (max_spikes < 1 || !(refractory >= 0)) return wrong("max_spikes or refractory");
    const native::Options options =
        options_of(max_spikes, max_counted, once, subtract, refractory, 0.0, threads, jumps);
    population.strict = strict;
    const bool holds = options.spike_sets_v();
    if (!has_shape(*cause, {batch, neurons, jumps ? max_spikes : 0}) ||
        !has_shape(*spike_time, {batch, neurons, max_spikes}) ||
        !has_shape(*slope, {batch, neurons, max_spikes}) ||
        !has_shape(*slope_after, {batch, neurons, holds ? max_spikes : 0}) ||
        !has_shape(*count, {batch, neurons}))
      return wrong("a result has the wrong shape");
    native::SortedArrivals<T> sorted;
    problem = in_order(population, time, row, options.threads, *sorted_time, *sorted_row, *sorted_slot,
                       *used, sorted);
    if (!problem.empty()) return wrong(problem);
    const native::Spikes<T> spikes{spike_time->typed_data<T>(), slope->typed_data<T>(),
                                   slope_after->typed_data<T>(), count->typed_data<std::int32_t>(),
                                   cause->typed_data<std::int32_t>()};
    prefer_large_pages(*spike_time, *slope, *slope_after, *cause);
    native::layer_forward(population, options, sorted, spikes);
    return ffi::Error::Success();
  });
}

ffi::Error LayerRecorded(ffi::AnyBuffer weight, ffi::AnyBuffer lanes, ffi::AnyBuffer time,
                         ffi::AnyBuffer row, ffi::AnyBuffer t_end, ffi::AnyBuffer spike_time,
                         ffi::Result<ffi::AnyBuffer> slope, ffi::Result<ffi::AnyBuffer> sorted_time,
                         ffi::Result<ffi::AnyBuffer> sorted_row,
                         ffi::Result<ffi::AnyBuffer> sorted_slot, ffi::Result<ffi::AnyBuffer> used,
                         std::int64_t threads) {
  using T = NUMBER;
  return guarded([&]() -> ffi::Error {
    native::Population<T> population;
    std::string problem = given_of<T>(weight, lanes, time, t_end, population);
    if (!problem.empty()) return wrong(problem);
    const Index batch = population.batch, arrivals = population.arrivals, neurons = population.neurons;
    if (population.positions != 1) return wrong("recorded spikes have no positions");
    if (spike_time.dimensions().size() != 3) return wrong("spikes are not (batch, neurons, slots)");
    const Index slots = spike_time.dimensions()[2];
    const native::Options options = options_of(slots, 0, false, false, 0, 0, threads);
    if (!has_shape(spike_time, {batch, neurons, slots}) || !has_type(spike_time, kType<T>) ||
        !has_shape(*slope, {batch, neurons, slots}))
      return wrong("recorded spikes have the wrong shape or type");
    native::SortedArrivals<T> sorted;
    problem = in_order(population, time, row, options.threads, *sorted_time, *sorted_row, *sorted_slot,
                       *used, sorted);
    if (!problem.empty()) return wrong(problem);
    native::recorded_slopes(population, options, sorted, spike_time.typed_data<T>(),
                            slope->typed_data<T>());
    return ffi::Error::Success();
  });
}

ffi::Error LayerBackward(ffi::AnyBuffer weight, ffi::AnyBuffer lanes, ffi::AnyBuffer sorted_time,
                         ffi::AnyBuffer sorted_row, ffi::AnyBuffer sorted_slot, ffi::AnyBuffer used,
                         ffi::AnyBuffer t_end, ffi::AnyBuffer spike_time, ffi::AnyBuffer slope,
                         ffi::AnyBuffer slope_after, ffi::AnyBuffer cause,
                         ffi::AnyBuffer cotangent,
                         ffi::Result<ffi::AnyBuffer> by_weight,
                         ffi::Result<ffi::AnyBuffer> by_lanes, ffi::Result<ffi::AnyBuffer> by_time,
                         bool subtract, double refractory, double min_slope, bool jumps,
                         bool strict, std::int64_t threads) {
  using T = NUMBER;
  return guarded([&]() -> ffi::Error {
    native::Population<T> population;
    std::string problem = given_of<T>(weight, lanes, sorted_time, t_end, population);
    if (!problem.empty()) return wrong(problem);
    const Index batch = population.batch, arrivals = population.arrivals, neurons = population.neurons;
    if (spike_time.dimensions().size() != 3) return wrong("spikes are not (batch, neurons, slots)");
    const Index slots = spike_time.dimensions()[2];
    const native::Options options =
        options_of(slots, 0, false, subtract, refractory, min_slope, threads, jumps);
    population.strict = strict;
    const bool holds = options.spike_sets_v();
    if (!has_shape(cause, {batch, neurons, jumps ? slots : 0}) || !has_type(cause, ffi::S32) ||
        !has_shape(spike_time, {batch, neurons, slots}) ||
        !has_shape(slope, {batch, neurons, slots}) ||
        !has_shape(slope_after, {batch, neurons, holds ? slots : 0}) ||
        !has_shape(cotangent, {batch, neurons, slots}) ||
        !has_shape(sorted_row, {batch, arrivals}) || !has_shape(sorted_slot, {batch, arrivals}) ||
        !has_shape(used, {batch}) || !has_shape(*by_weight, {population.rows, neurons}))
      return wrong("an argument of the backward pass has the wrong shape");
    for (auto buffer : {spike_time, slope, slope_after, cotangent})
      if (!has_type(buffer, kType<T>)) return wrong("the arguments differ in their types");
    for (auto buffer : {sorted_row, sorted_slot, used})
      if (!has_type(buffer, ffi::S32)) return wrong("numbers of arrivals are not int32");
    const Index fields = fields_of(*by_lanes, population.positions, neurons);
    const bool of_time = has_shape(*by_time, {batch, arrivals});
    const native::SortedArrivals<T> sorted{
        sorted_time.typed_data<T>(), sorted_row.typed_data<std::int32_t>(),
        sorted_slot.typed_data<std::int32_t>(), used.typed_data<std::int32_t>(), arrivals};
    const native::ForwardSpikes<T> found{spike_time.typed_data<T>(), slope.typed_data<T>(),
                                 slope_after.typed_data<T>(), cotangent.typed_data<T>(),
                                 cause.typed_data<std::int32_t>()};
    const native::Gradients<T> gradients{by_weight->typed_data<T>(),
                                         fields ? by_lanes->typed_data<T>() : nullptr, fields,
                                         of_time ? by_time->typed_data<T>() : nullptr};
    native::layer_backward(population, options, sorted, found, gradients, batch);
    return ffi::Error::Success();
  });
}

/// What a group's arrays are, or what is wrong with them.
std::string group_of(const native::Population<NUMBER>& population, ffi::AnyBuffer spikes,
                     ffi::AnyBuffer slopes, ffi::AnyBuffer count, ffi::AnyBuffer train,
                     ffi::AnyBuffer neuron, ffi::AnyBuffer needed, ffi::AnyBuffer wait,
                     ffi::AnyBuffer row, ffi::AnyBuffer slope, ffi::AnyBuffer used,
                     ffi::AnyBuffer origin, const native::Feedback<NUMBER>& feedback,
                     native::Spikes<NUMBER>& of_spikes, native::SpikeTrain<NUMBER>& of_train,
                     native::EventLog<NUMBER>& of_log) {
  const Index batch = population.batch, neurons = population.neurons;
  if (population.positions != 1 || feedback.first_delayed_row(population) < 0)
    return "the table has no rows of feedback";
  if (spikes.dimensions().size() != 3 || train.dimensions().size() != 2 ||
      wait.dimensions().size() != 2)
    return "results have the wrong number of axes";
  const Index slots = spikes.dimensions()[2];
  of_train.events = train.dimensions()[1];
  of_log.steps = wait.dimensions()[1];
  if (!has_shape(spikes, {batch, neurons, slots}) || !has_shape(slopes, {batch, neurons, slots}) ||
      !has_shape(count, {batch, neurons}) || !has_shape(train, {batch, of_train.events}) ||
      !has_shape(neuron, {batch, of_train.events}) || !has_shape(needed, {batch}) ||
      !has_shape(wait, {batch, of_log.steps}) || !has_shape(row, {batch, of_log.steps}) ||
      !has_shape(slope, {batch, of_log.steps}) || !has_shape(used, {batch}) ||
      !(has_shape(origin, {batch, of_log.steps}) || has_shape(origin, {batch, 0})))
    return "an array of the group has the wrong shape";
  for (auto buffer : {spikes, slopes, train, wait, slope})
    if (!has_type(buffer, kType<NUMBER>)) return "the arguments differ in their types";
  for (auto buffer : {count, neuron, needed, row, used, origin})
    if (!has_type(buffer, ffi::S32)) return "numbers of spikes are not int32";
  of_spikes = {spikes.typed_data<NUMBER>(), slopes.typed_data<NUMBER>(), nullptr,
               count.typed_data<std::int32_t>()};
  of_train.time = train.typed_data<NUMBER>();
  of_train.neuron = neuron.typed_data<std::int32_t>();
  of_train.total = needed.typed_data<std::int32_t>();
  of_log.wait = wait.typed_data<NUMBER>();
  of_log.row = row.typed_data<std::int32_t>();
  of_log.slope = slope.typed_data<NUMBER>();
  of_log.used = used.typed_data<std::int32_t>();
  const bool has_origin = origin.dimensions()[1] == of_log.steps;
  of_log.origin = has_origin ? origin.typed_data<std::int32_t>() : nullptr;
  return "";
}

/// What the neurons of a group send, or what is wrong with it.
std::string feedback_of(const native::Population<NUMBER>& population, ffi::AnyBuffer delay,
                        ffi::AnyBuffer sender, ffi::AnyBuffer refractory, bool immediate,
                        native::Feedback<NUMBER>& feedback) {
  if (delay.dimensions().size() != 1) return "delays are not (rows,)";
  feedback.immediate = immediate;
  feedback.delayed = delay.dimensions()[0];
  if (!has_shape(sender, {feedback.delayed})) return "not every delay has a sender";
  const bool held = has_shape(refractory, {population.neurons});
  if (!held && !has_shape(refractory, {0})) return "refractory times are not (neurons,)";
  for (auto buffer : {delay, refractory})
    if (!has_type(buffer, kType<NUMBER>)) return "the arguments differ in their types";
  if (!has_type(sender, ffi::S32)) return "senders are not int32";
  feedback.delay = delay.typed_data<NUMBER>();
  feedback.sender = sender.typed_data<std::int32_t>();
  feedback.refractory = held ? refractory.typed_data<NUMBER>() : nullptr;
  return "";
}

/// What arrives at once and is not in the table, if there is any; or what is wrong with it.
std::string apart_of(native::Population<NUMBER>& population, ffi::AnyBuffer by_target, ffi::AnyBuffer scale,
                     bool immediate, native::Feedback<NUMBER>& feedback) {
  const Index neurons = population.neurons;
  if (!has_type(by_target, kType<NUMBER>) || !has_type(scale, kType<NUMBER>))
    return "the arguments differ in their types";
  if (has_shape(by_target, {0, 0})) return "";
  if (!immediate || !has_shape(by_target, {neurons, neurons}) || !has_shape(scale, {neurons}))
    return "what arrives at once is not (targets, sources), or its scale not (targets,)";
  population.rows += neurons;
  if (population.rows >= std::numeric_limits<std::int32_t>::max()) return "more than 2^31 rows";
  feedback.by_target = by_target.typed_data<NUMBER>();
  feedback.scale = scale.typed_data<NUMBER>();
  return "";
}

ffi::Error GroupForward(ffi::AnyBuffer weight, ffi::AnyBuffer by_target, ffi::AnyBuffer scale,
                        ffi::AnyBuffer lanes, ffi::AnyBuffer time, ffi::AnyBuffer row,
                        ffi::AnyBuffer t_end, ffi::AnyBuffer delay, ffi::AnyBuffer sender,
                        ffi::AnyBuffer refractory,
                        ffi::Result<ffi::AnyBuffer> spikes, ffi::Result<ffi::AnyBuffer> slopes,
                        ffi::Result<ffi::AnyBuffer> count, ffi::Result<ffi::AnyBuffer> train,
                        ffi::Result<ffi::AnyBuffer> neuron, ffi::Result<ffi::AnyBuffer> needed,
                        ffi::Result<ffi::AnyBuffer> wait, ffi::Result<ffi::AnyBuffer> log_row,
                        ffi::Result<ffi::AnyBuffer> slope, ffi::Result<ffi::AnyBuffer> used,
                        ffi::Result<ffi::AnyBuffer> origin,
                        ffi::Result<ffi::AnyBuffer> sorted_time,
                        ffi::Result<ffi::AnyBuffer> sorted_row,
                        ffi::Result<ffi::AnyBuffer> sorted_slot,
                        ffi::Result<ffi::AnyBuffer> sorted_used, ffi::Result<ffi::AnyBuffer> nothing,
                        std::int64_t max_spikes, bool once, bool subtract, bool immediate,
                        std::int64_t threads) {
  using T = NUMBER;
  return guarded([&]() -> ffi::Error {
    native::Population<T> population;
    std::string problem = given_of<T>(weight, lanes, time, t_end, population);
    if (!problem.empty()) return wrong(problem);
    native::Feedback<T> feedback = {};
    problem = apart_of(population, by_target, scale, immediate, feedback);
    if (!problem.empty()) return wrong(problem);
    problem = feedback_of(population, delay, sender, refractory, immediate, feedback);
    if (!problem.empty()) return wrong(problem);
    native::Spikes<T> of_spikes;
    native::SpikeTrain<T> of_train;
    native::EventLog<T> of_log;
    problem = group_of(population, *spikes, *slopes, *count, *train, *neuron, *needed, *wait, *log_row,
                       *slope, *used, *origin, feedback, of_spikes, of_train, of_log);
    if (!problem.empty()) return wrong(problem);
    if (feedback.uses_queue() && !of_log.origin) return wrong("the log has no origins");
    if (spikes->dimensions()[2] != max_spikes || max_spikes < 1 || !has_shape(*nothing, {}) ||
        !has_type(*nothing, kType<T>))
      return wrong("a result has the wrong shape");
    const native::Options options = options_of(max_spikes, 0, once, subtract, 0, 0, threads);
    native::SortedArrivals<T> sorted;
    problem = in_order(population, time, row, options.threads, *sorted_time, *sorted_row, *sorted_slot,
                       *sorted_used, sorted);
    if (!problem.empty()) return wrong(problem);
    prefer_large_pages(*spikes, *slopes);
    *nothing->typed_data<T>() =
        native::group_forward(population, options, feedback, sorted, of_spikes, of_train, of_log);
    return ffi::Error::Success();
  });
}

ffi::Error GroupBackward(ffi::AnyBuffer weight, ffi::AnyBuffer by_target, ffi::AnyBuffer scale,
                         ffi::AnyBuffer lanes, ffi::AnyBuffer t_end, ffi::AnyBuffer spikes,
                         ffi::AnyBuffer slopes, ffi::AnyBuffer count, ffi::AnyBuffer train,
                         ffi::AnyBuffer neuron, ffi::AnyBuffer needed,
                         ffi::AnyBuffer wait, ffi::AnyBuffer log_row, ffi::AnyBuffer slope,
                         ffi::AnyBuffer used, ffi::AnyBuffer origin, ffi::AnyBuffer sorted_time,
                         ffi::AnyBuffer sorted_row, ffi::AnyBuffer sorted_slot,
                         ffi::AnyBuffer sorted_used, ffi::AnyBuffer by_spikes,
                         ffi::AnyBuffer by_train, ffi::Result<ffi::AnyBuffer> by_weight,
                         ffi::Result<ffi::AnyBuffer> by_lanes, ffi::Result<ffi::AnyBuffer> by_time,
                         ffi::Result<ffi::AnyBuffer> by_delay, bool subtract, bool immediate,
                         double min_slope, std::int64_t threads) {
  using T = NUMBER;
  return guarded([&]() -> ffi::Error {
    native::Population<T> population;
    std::string problem = given_of<T>(weight, lanes, sorted_time, t_end, population);
    if (!problem.empty()) return wrong(problem);
    if (by_delay->dimensions().size() != 1) return wrong("delays are not (rows,)");
    // backwards the log says who sent what, and who was held
    native::Feedback<T> feedback{immediate, by_delay->dimensions()[0]};
    problem = apart_of(population, by_target, scale, immediate, feedback);
    if (!problem.empty()) return wrong(problem);
    native::Spikes<T> of_spikes;
    native::SpikeTrain<T> of_train;
    native::EventLog<T> of_log;
    problem = group_of(population, spikes, slopes, count, train, neuron, needed, wait, log_row, slope,
                       used, origin, feedback, of_spikes, of_train, of_log);
    if (!problem.empty()) return wrong(problem);
    const Index batch = population.batch, arrivals = population.arrivals, neurons = population.neurons;
    const Index slots = spikes.dimensions()[2];
    if (!has_shape(by_spikes, {batch, neurons, slots}) ||
        !has_shape(by_train, {batch, of_train.events}) ||
        !has_shape(sorted_row, {batch, arrivals}) || !has_shape(sorted_slot, {batch, arrivals}) ||
        !has_shape(sorted_used, {batch}) || !has_shape(*by_weight, {population.rows, neurons}))
      return wrong("an argument of the backward pass has the wrong shape");
    for (auto buffer : {by_spikes, by_train})
      if (!has_type(buffer, kType<T>)) return wrong("the arguments differ in their types");
    for (auto buffer : {sorted_row, sorted_slot, sorted_used})
      if (!has_type(buffer, ffi::S32)) return wrong("numbers of arrivals are not int32");
    const Index fields = fields_of(*by_lanes, 1, neurons);
    const bool of_time = has_shape(*by_time, {batch, arrivals});
    const native::Options options = options_of(slots, 0, false, subtract, 0, min_slope, threads);
    const native::SortedArrivals<T> sorted{
        sorted_time.typed_data<T>(), sorted_row.typed_data<std::int32_t>(),
        sorted_slot.typed_data<std::int32_t>(), sorted_used.typed_data<std::int32_t>(), arrivals};
    const native::Cotangents<T> cotangents{by_spikes.typed_data<T>(), by_train.typed_data<T>()};
    const native::Gradients<T> gradients{by_weight->typed_data<T>(),
                                         fields ? by_lanes->typed_data<T>() : nullptr, fields,
                                         of_time ? by_time->typed_data<T>() : nullptr};
    native::group_backward(population, options, feedback, sorted, of_spikes, of_train, of_log,
                           cotangents, gradients, by_delay->typed_data<T>());
    return ffi::Error::Success();
  });
}

/// Where events go, or what is wrong with it.
std::string taps_of(const native::Population<NUMBER>& population, ffi::AnyBuffer time, ffi::AnyBuffer channel,
                    ffi::AnyBuffer place, ffi::AnyBuffer row, native::TapTable<NUMBER>& taps) {
  taps.samples = population.batch;
  if (!has_shape(channel, {population.batch, population.arrivals})) return "channels are not (batch, events)";
  if (place.dimensions().size() != 2) return "places are not (channels, taps)";
  taps.channels = place.dimensions()[0];
  taps.taps = place.dimensions()[1];
  if (!has_shape(row, {taps.channels, taps.taps})) return "rows are not (channels, taps)";
  for (auto buffer : {channel, place, row})
    if (!has_type(buffer, ffi::S32)) return "channels, places or rows are not int32";
  taps.time = time.typed_data<NUMBER>();
  taps.channel = channel.typed_data<std::int32_t>();
  taps.position = place.typed_data<std::int32_t>();
  taps.row = row.typed_data<std::int32_t>();
  return "";
}

/// The shared arguments where each position has arrivals of its own, which are (samples, events).
std::string scattered_of(ffi::AnyBuffer weight, ffi::AnyBuffer lanes, ffi::AnyBuffer time,
                         ffi::AnyBuffer channel, ffi::AnyBuffer place, ffi::AnyBuffer row,
                         ffi::AnyBuffer t_end, native::Population<NUMBER>& population,
                         native::TapTable<NUMBER>& taps) {
  if (lanes.dimensions().size() != 3) return "lanes are not (fields, positions, neurons)";
  std::string problem = given_of<NUMBER>(weight, lanes, time, t_end, population, false);
  if (problem.empty()) problem = taps_of(population, time, channel, place, row, taps);
  population.batch *= population.positions;
  population.position_minor = true;
  return problem;
}

ffi::Error ScatterForward(ffi::AnyBuffer weight, ffi::AnyBuffer lanes, ffi::AnyBuffer time,
                          ffi::AnyBuffer channel, ffi::AnyBuffer place, ffi::AnyBuffer row,
                          ffi::AnyBuffer t_end, ffi::Result<ffi::AnyBuffer> spike_time,
                          ffi::Result<ffi::AnyBuffer> slope,
                          ffi::Result<ffi::AnyBuffer> slope_after,
                          ffi::Result<ffi::AnyBuffer> count, ffi::Result<ffi::AnyBuffer> cause,
                          std::int64_t max_spikes, std::int64_t max_counted, bool once, bool subtract,
                          double refractory, bool jumps, bool strict, std::int64_t threads) {
  using T = NUMBER;
  return guarded([&]() -> ffi::Error {
    native::Population<T> population;
    native::TapTable<T> taps;
    std::string problem =
        scattered_of(weight, lanes, time, channel, place, row, t_end, population, taps);
    if (!problem.empty()) return wrong(problem);
    if (max_spikes < 1 || !(refractory >= 0)) return wrong("max_spikes or refractory");
    const Index samples = taps.samples, all = population.neurons * population.positions;
    const native::Options options =
        options_of(max_spikes, max_counted, once, subtract, refractory, 0.0, threads, jumps);
    population.strict = strict;
    if (!has_shape(*cause, {samples, all, jumps ? max_spikes : 0}) ||
        !has_shape(*spike_time, {samples, all, max_spikes}) ||
        !has_shape(*slope, {samples, all, max_spikes}) ||
        !has_shape(*slope_after, {samples, all, options.spike_sets_v() ? max_spikes : 0}) ||
        !has_shape(*count, {samples, all}))
      return wrong("a result has the wrong shape");
    const native::Spikes<T> spikes{spike_time->typed_data<T>(), slope->typed_data<T>(),
                                   slope_after->typed_data<T>(), count->typed_data<std::int32_t>(),
                                   cause->typed_data<std::int32_t>()};
    prefer_large_pages(*spike_time, *slope, *slope_after, *cause);
    native::scatter_forward(population, options, taps, spikes);
    return ffi::Error::Success();
  });
}

ffi::Error ScatterBackward(ffi::AnyBuffer weight, ffi::AnyBuffer lanes, ffi::AnyBuffer time,
                           ffi::AnyBuffer channel, ffi::AnyBuffer place, ffi::AnyBuffer row,
                           ffi::AnyBuffer t_end, ffi::AnyBuffer spike_time, ffi::AnyBuffer slope,
                           ffi::AnyBuffer slope_after, ffi::AnyBuffer cause,
                           ffi::AnyBuffer cotangent, ffi::AnyBuffer of_train,
                           ffi::AnyBuffer train_place, ffi::Result<ffi::AnyBuffer> by_weight,
                           ffi::Result<ffi::AnyBuffer> by_lanes,
                           ffi::Result<ffi::AnyBuffer> by_time, bool subtract, double refractory,
                           double min_slope, bool jumps, bool strict, std::int64_t threads) {
  using T = NUMBER;
  return guarded([&]() -> ffi::Error {
    native::Population<T> population;
    native::TapTable<T> taps;
    std::string problem =
        scattered_of(weight, lanes, time, channel, place, row, t_end, population, taps);
    if (!problem.empty()) return wrong(problem);
    const Index samples = taps.samples, all = population.neurons * population.positions;
    if (spike_time.dimensions().size() != 3) return wrong("spikes are not (batch, neurons, slots)");
    const Index slots = spike_time.dimensions()[2];
    const native::Options options =
        options_of(slots, 0, false, subtract, refractory, min_slope, threads, jumps);
    population.strict = strict;
    if (!has_shape(cause, {samples, all, jumps ? slots : 0}) || !has_type(cause, ffi::S32) ||
        !has_shape(spike_time, {samples, all, slots}) ||
        !has_shape(slope, {samples, all, slots}) ||
        !has_shape(slope_after, {samples, all, options.spike_sets_v() ? slots : 0}) ||
        !(has_shape(cotangent, {samples, all, slots}) || has_shape(cotangent, {samples, all, 0})) ||
        !has_shape(*by_weight, {population.rows, population.neurons}))
      return wrong("an argument of the backward pass has the wrong shape");
    if (of_train.dimensions().size() != 2) return wrong("a train is not (batch, events)");
    const Index events = of_train.dimensions()[1];
    if (!has_shape(of_train, {samples, events}) || !has_shape(train_place, {samples, events}) ||
        !has_type(train_place, ffi::S32))
      return wrong("a train does not fit its places");
    for (auto buffer : {spike_time, slope, slope_after, cotangent, of_train})
      if (!has_type(buffer, kType<T>)) return wrong("the arguments differ in their types");
    const Index fields = fields_of(*by_lanes, population.positions, population.neurons);
    const bool of_time = has_shape(*by_time, {samples, population.arrivals});
    const native::ForwardSpikes<T> found{spike_time.typed_data<T>(), slope.typed_data<T>(),
                                 slope_after.typed_data<T>(), nullptr,
                                 cause.typed_data<std::int32_t>()};
    const native::Gradients<T> gradients{by_weight->typed_data<T>(),
                                         fields ? by_lanes->typed_data<T>() : nullptr, fields,
                                         of_time ? by_time->typed_data<T>() : nullptr};
    const bool of_slots = cotangent.dimensions()[2] == slots;
    const native::SpikeCotangents<T> drives{of_slots ? cotangent.typed_data<T>() : nullptr,
                                   of_train.typed_data<T>(), train_place.typed_data<std::int32_t>(),
                                   all * slots, events};
    native::scatter_backward(population, options, taps, found, drives, gradients);
    return ffi::Error::Success();
  });
}

/// What a readout is given; arrivals and samples are `time` together, and come in order.
template <class T>
class OfReadout {
 public:
  OfReadout(ffi::AnyBuffer weight, ffi::AnyBuffer lanes, ffi::AnyBuffer time, ffi::AnyBuffer row,
            ffi::AnyBuffer t_end, ffi::AnyBuffer voltage, std::int64_t wanted_threads)
      : threads(std::clamp<Index>(wanted_threads, 1, 1024)) {
    problem = given_of<T>(weight, lanes, time, t_end, population);
    if (!problem.empty()) return;
    const Index entries = population.batch * population.arrivals;
    const bool shared = has_shape(row, {population.arrivals});
    if (!has_type(row, ffi::S32) || !(shared || has_shape(row, {population.batch, population.arrivals})))
      problem = "rows are not (arrivals,) or (batch, arrivals) int32";
    else if (population.positions != 1)
      problem = "a readout has one position";
    else if (voltage.dimensions().size() != 3 || !has_type(voltage, kType<T>))
      problem = "voltages are not (batch, samples, neurons)";
    else if (samples = voltage.dimensions()[1];
             !has_shape(voltage, {population.batch, samples, population.neurons}) || samples > population.arrivals)
      problem = "voltages do not fit the arrivals";
    if (!problem.empty()) return;
    time_ = native::Array<T>(entries);
    row_ = native::Array<std::int32_t>(entries);
    slot_ = native::Array<std::int32_t>(entries);
    used_ = native::Array<std::int32_t>(population.batch);
    native::sort_arrivals(population, time.typed_data<T>(), row.typed_data<std::int32_t>(), shared,
                         threads, time_.data(), row_.data(), slot_.data(), used_.data());
    sorted = {time_.data(), row_.data(), slot_.data(), used_.data(), population.arrivals};
  }

  native::Population<T> population;
  native::SortedArrivals<T> sorted;
  Index threads, samples = 0;
  std::string problem;

 private:
  native::Array<T> time_;
  native::Array<std::int32_t> row_, slot_, used_;
};

ffi::Error ReadoutForward(ffi::AnyBuffer weight, ffi::AnyBuffer lanes, ffi::AnyBuffer time,
                          ffi::AnyBuffer row, ffi::AnyBuffer t_end,
                          ffi::Result<ffi::AnyBuffer> voltage, bool jumps, std::int64_t threads) {
  using T = NUMBER;
  return guarded([&]() -> ffi::Error {
    const OfReadout<T> of(weight, lanes, time, row, t_end, *voltage, threads);
    if (!of.problem.empty()) return wrong(of.problem);
    native::readout_forward(of.population, of.sorted, jumps, of.samples, of.threads,
                            voltage->typed_data<T>());
    return ffi::Error::Success();
  });
}

ffi::Error ReadoutBackward(ffi::AnyBuffer weight, ffi::AnyBuffer lanes, ffi::AnyBuffer time,
                           ffi::AnyBuffer row, ffi::AnyBuffer t_end, ffi::AnyBuffer cotangent,
                           ffi::Result<ffi::AnyBuffer> by_weight,
                           ffi::Result<ffi::AnyBuffer> by_lanes,
                           ffi::Result<ffi::AnyBuffer> by_time, bool jumps, std::int64_t threads) {
  using T = NUMBER;
  return guarded([&]() -> ffi::Error {
    const OfReadout<T> of(weight, lanes, time, row, t_end, cotangent, threads);
    if (!of.problem.empty()) return wrong(of.problem);
    const native::Population<T>& population = of.population;
    if (!has_shape(*by_weight, {population.rows, population.neurons}))
      return wrong("an argument of the backward pass has the wrong shape");
    const Index fields = fields_of(*by_lanes, 1, population.neurons);
    const bool of_time = has_shape(*by_time, {population.batch, population.arrivals - of.samples});
    const native::Gradients<T> gradients{by_weight->typed_data<T>(),
                                         fields ? by_lanes->typed_data<T>() : nullptr, fields,
                                         of_time ? by_time->typed_data<T>() : nullptr};
    native::readout_backward(population, of.sorted, jumps, of.samples, of.threads,
                             cotangent.typed_data<T>(), gradients);
    return ffi::Error::Success();
  });
}

ffi::Error Earliest(ffi::AnyBuffer time, ffi::Result<ffi::AnyBuffer> place, std::int64_t threads) {
  return guarded([&]() -> ffi::Error {
    if (time.dimensions().size() != 2 || place->dimensions().size() != 2)
      return wrong("times are not (batch, events)");
    const Index batch = time.dimensions()[0], events = time.dimensions()[1];
    const Index room = place->dimensions()[1];
    if (!has_type(time, kType<NUMBER>) || !has_type(*place, ffi::S32) ||
        !has_shape(*place, {batch, room}) || room > events ||
        events >= std::numeric_limits<std::int32_t>::max())
      return wrong("places do not fit the events");
    native::find_earliest(time.typed_data<NUMBER>(), batch, events, room,
                     std::clamp<Index>(threads, 1, 1024), place->typed_data<std::int32_t>());
    return ffi::Error::Success();
  });
}

ffi::Error Turned(ffi::AnyBuffer matrix, ffi::Result<ffi::AnyBuffer> turned,
                  std::int64_t threads) {
  return guarded([&]() -> ffi::Error {
    if (matrix.dimensions().size() != 2) return wrong("what is turned is no matrix");
    const Index rows = matrix.dimensions()[0], columns = matrix.dimensions()[1];
    if (!has_type(matrix, kType<NUMBER>) || !has_type(*turned, kType<NUMBER>) ||
        !has_shape(*turned, {columns, rows}))
      return wrong("the turned matrix does not fit");
    prefer_large_pages(*turned);
    native::transpose(matrix.typed_data<NUMBER>(), rows, columns, std::clamp<Index>(threads, 1, 1024),
                 turned->typed_data<NUMBER>(), rows);
    return ffi::Error::Success();
  });
}

}  // namespace

#define BUFFER(n) .Arg<ffi::AnyBuffer>()
#define RESULT(n) .Ret<ffi::AnyBuffer>()

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxsnn_layer_forward, LayerForward,
                              ffi::Ffi::Bind()
                                  BUFFER(weight) BUFFER(lanes) BUFFER(time) BUFFER(row)
                                  BUFFER(t_end)
                                  RESULT(time) RESULT(slope) RESULT(slope_after) RESULT(count)
                                  RESULT(cause)
                                  RESULT(sorted_time) RESULT(sorted_row) RESULT(sorted_slot)
                                  RESULT(used)
                                  .Attr<std::int64_t>("max_spikes")
                                  .Attr<std::int64_t>("counted")
                                  .Attr<bool>("once")
                                  .Attr<bool>("subtract")
                                  .Attr<double>("refractory")
                                  .Attr<bool>("jumps")
                                  .Attr<bool>("strict")
                                  .Attr<std::int64_t>("threads"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxsnn_layer_recorded, LayerRecorded,
                              ffi::Ffi::Bind()
                                  BUFFER(weight) BUFFER(lanes) BUFFER(time) BUFFER(row)
                                  BUFFER(t_end) BUFFER(spike_time)
                                  RESULT(slope) RESULT(sorted_time) RESULT(sorted_row)
                                  RESULT(sorted_slot) RESULT(used)
                                  .Attr<std::int64_t>("threads"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxsnn_layer_backward, LayerBackward,
                              ffi::Ffi::Bind()
                                  BUFFER(weight) BUFFER(lanes) BUFFER(sorted_time)
                                  BUFFER(sorted_row) BUFFER(sorted_slot) BUFFER(used) BUFFER(t_end)
                                  BUFFER(spike_time) BUFFER(slope) BUFFER(slope_after)
                                  BUFFER(cause) BUFFER(cotangent)
                                  RESULT(weight) RESULT(lanes) RESULT(time)
                                  .Attr<bool>("subtract")
                                  .Attr<double>("refractory")
                                  .Attr<double>("min_slope")
                                  .Attr<bool>("jumps")
                                  .Attr<bool>("strict")
                                  .Attr<std::int64_t>("threads"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxsnn_group_forward, GroupForward,
                              ffi::Ffi::Bind()
                                  BUFFER(weight) BUFFER(by_target) BUFFER(scale) BUFFER(lanes)
                                  BUFFER(time) BUFFER(row) BUFFER(t_end) BUFFER(delay)
                                  BUFFER(sender) BUFFER(refractory)
                                  RESULT(spikes) RESULT(slopes) RESULT(count) RESULT(train)
                                  RESULT(neuron) RESULT(needed) RESULT(wait) RESULT(log_row)
                                  RESULT(slope) RESULT(used) RESULT(origin) RESULT(sorted_time)
                                  RESULT(sorted_row) RESULT(sorted_slot) RESULT(sorted_used)
                                  RESULT(nothing)
                                  .Attr<std::int64_t>("max_spikes")
                                  .Attr<bool>("once")
                                  .Attr<bool>("subtract")
                                  .Attr<bool>("immediate")
                                  .Attr<std::int64_t>("threads"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxsnn_group_backward, GroupBackward,
                              ffi::Ffi::Bind()
                                  BUFFER(weight) BUFFER(by_target) BUFFER(scale) BUFFER(lanes)
                                  BUFFER(t_end) BUFFER(spikes) BUFFER(slopes) BUFFER(count)
                                  BUFFER(train) BUFFER(neuron) BUFFER(needed) BUFFER(wait)
                                  BUFFER(log_row) BUFFER(slope) BUFFER(used) BUFFER(origin)
                                  BUFFER(sorted_time)
                                  BUFFER(sorted_row) BUFFER(sorted_slot) BUFFER(sorted_used)
                                  BUFFER(by_spikes) BUFFER(by_train)
                                  RESULT(by_weight) RESULT(by_lanes) RESULT(by_time)
                                  RESULT(by_delay)
                                  .Attr<bool>("subtract")
                                  .Attr<bool>("immediate")
                                  .Attr<double>("min_slope")
                                  .Attr<std::int64_t>("threads"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxsnn_scatter_forward, ScatterForward,
                              ffi::Ffi::Bind()
                                  BUFFER(weight) BUFFER(lanes) BUFFER(time) BUFFER(channel)
                                  BUFFER(place) BUFFER(row) BUFFER(t_end)
                                  RESULT(time) RESULT(slope) RESULT(slope_after) RESULT(count)
                                  RESULT(cause)
                                  .Attr<std::int64_t>("max_spikes")
                                  .Attr<std::int64_t>("counted")
                                  .Attr<bool>("once")
                                  .Attr<bool>("subtract")
                                  .Attr<double>("refractory")
                                  .Attr<bool>("jumps")
                                  .Attr<bool>("strict")
                                  .Attr<std::int64_t>("threads"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxsnn_scatter_backward, ScatterBackward,
                              ffi::Ffi::Bind()
                                  BUFFER(weight) BUFFER(lanes) BUFFER(time) BUFFER(channel)
                                  BUFFER(place) BUFFER(row) BUFFER(t_end) BUFFER(spike_time)
                                  BUFFER(slope) BUFFER(slope_after) BUFFER(cause) BUFFER(cotangent) BUFFER(of_train) BUFFER(train_place)
                                  RESULT(weight) RESULT(lanes) RESULT(time)
                                  .Attr<bool>("subtract")
                                  .Attr<double>("refractory")
                                  .Attr<double>("min_slope")
                                  .Attr<bool>("jumps")
                                  .Attr<bool>("strict")
                                  .Attr<std::int64_t>("threads"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxsnn_readout_forward, ReadoutForward,
                              ffi::Ffi::Bind()
                                  BUFFER(weight) BUFFER(lanes) BUFFER(time) BUFFER(row)
                                  BUFFER(t_end)
                                  RESULT(voltage)
                                  .Attr<bool>("jumps")
                                  .Attr<std::int64_t>("threads"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxsnn_readout_backward, ReadoutBackward,
                              ffi::Ffi::Bind()
                                  BUFFER(weight) BUFFER(lanes) BUFFER(time) BUFFER(row)
                                  BUFFER(t_end) BUFFER(cotangent)
                                  RESULT(weight) RESULT(lanes) RESULT(time)
                                  .Attr<bool>("jumps")
                                  .Attr<std::int64_t>("threads"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxsnn_earliest, Earliest,
                              ffi::Ffi::Bind()
                                  BUFFER(time)
                                  RESULT(place)
                                  .Attr<std::int64_t>("threads"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxsnn_turned, Turned,
                              ffi::Ffi::Bind()
                                  BUFFER(matrix)
                                  RESULT(turned)
                                  .Attr<std::int64_t>("threads"));
