// XLA FFI handlers of one neuron model whose equations are integrated (integrated.h). The source text
// that model_source.py writes includes this file behind its class `Model`.

#pragma once

#include "ffi_calls.h"
#include "integrated.h"

namespace {

/// Read the arguments that both kernels share. Return the problem, or an empty string.
std::string read_integrated(ffi::AnyBuffer weight, ffi::AnyBuffer parameters, ffi::AnyBuffer time,
                            ffi::AnyBuffer t_end, native::Population<NUMBER>& population) {
  if (weight.dimensions().size() != 2) return "weight is not (rows, neurons)";
  if (time.dimensions().size() != 2) return "time is not (batch, arrivals)";
  population = {time.dimensions()[0], time.dimensions()[1], weight.dimensions()[0],
                weight.dimensions()[1], 1};
  constexpr Index kFields = native::IntegratedNeurons<NUMBER, Model>::kFields;
  if (!has_shape(parameters, {kFields, population.neurons}))
    return "constants are not (fields, neurons)";
  if (!has_shape(t_end, {})) return "t_end is not a scalar";
  for (auto buffer : {weight, parameters, time, t_end})
    if (!has_type(buffer, kType<NUMBER>)) return "the arguments differ in their types";
  if (population.arrivals >= std::numeric_limits<std::int32_t>::max() ||
      population.rows >= std::numeric_limits<std::int32_t>::max())
    return "more than 2^31 arrivals or rows";
  population.weight = weight.typed_data<NUMBER>();
  population.parameters = parameters.typed_data<NUMBER>();
  population.t_end = *t_end.typed_data<NUMBER>();
  return "";
}

ffi::Error IntegratedForward(ffi::AnyBuffer weight, ffi::AnyBuffer parameters, ffi::AnyBuffer time,
                             ffi::AnyBuffer row, ffi::AnyBuffer t_end,
                             ffi::Result<ffi::AnyBuffer> spike_time,
                             ffi::Result<ffi::AnyBuffer> slope, ffi::Result<ffi::AnyBuffer> count,
                             ffi::Result<ffi::AnyBuffer> sorted_time,
                             ffi::Result<ffi::AnyBuffer> sorted_row,
                             ffi::Result<ffi::AnyBuffer> sorted_slot,
                             ffi::Result<ffi::AnyBuffer> used, std::int64_t max_spikes,
                             std::int64_t max_counted, bool once, std::int64_t threads) {
  native::Population<NUMBER> population;
  std::string problem = read_integrated(weight, parameters, time, t_end, population);
  if (!problem.empty()) return invalid_argument(problem);
  if (max_spikes < 1) return invalid_argument("max_spikes is out of range");
  const native::Options options =
      make_options(max_spikes, max_counted, once, false, 0.0, 0.0, threads);
  if (!has_shape(*spike_time, {population.batch, population.neurons, max_spikes}) ||
      !has_shape(*slope, {population.batch, population.neurons, max_spikes}) ||
      !has_shape(*count, {population.batch, population.neurons}))
    return invalid_argument("a result has the wrong shape");
  native::SortedArrivals<NUMBER> sorted;
  problem = check_and_sort_arrivals(population, time, row, options.threads, *sorted_time,
                                    *sorted_row, *sorted_slot, *used, sorted);
  if (!problem.empty()) return invalid_argument(problem);
  native::integrated_forward<NUMBER, Model>(
      population, options, sorted,
      {spike_time->typed_data<NUMBER>(), slope->typed_data<NUMBER>(),
       count->typed_data<std::int32_t>()});
  return ffi::Error::Success();
}

ffi::Error IntegratedBackward(ffi::AnyBuffer weight, ffi::AnyBuffer parameters,
                              ffi::AnyBuffer sorted_time, ffi::AnyBuffer sorted_row,
                              ffi::AnyBuffer sorted_slot, ffi::AnyBuffer used,
                              ffi::AnyBuffer t_end, ffi::AnyBuffer spike_time,
                              ffi::AnyBuffer cotangent, ffi::Result<ffi::AnyBuffer> by_weight,
                              ffi::Result<ffi::AnyBuffer> by_parameters,
                              ffi::Result<ffi::AnyBuffer> by_time, std::int64_t threads) {
  native::Population<NUMBER> population;
  std::string problem = read_integrated(weight, parameters, sorted_time, t_end, population);
  if (!problem.empty()) return invalid_argument(problem);
  if (spike_time.dimensions().size() != 3)
    return invalid_argument("spikes are not (batch, neurons, max_spikes)");
  const Index batch = population.batch, arrivals = population.arrivals,
              neurons = population.neurons, slots = spike_time.dimensions()[2];
  constexpr Index kSums = Model::kConstants + Model::kVariables;
  const bool with_parameters = has_shape(*by_parameters, {kSums, neurons});
  if (!has_shape(spike_time, {batch, neurons, slots}) ||
      !has_shape(cotangent, {batch, neurons, slots}) ||
      !has_shape(sorted_row, {batch, arrivals}) || !has_shape(sorted_slot, {batch, arrivals}) ||
      !has_shape(used, {batch}) || !has_shape(*by_weight, {population.rows, neurons}) ||
      !(with_parameters || has_shape(*by_parameters, {0, neurons})))
    return invalid_argument("an argument of the backward pass has the wrong shape");
  for (auto buffer : {spike_time, cotangent})
    if (!has_type(buffer, kType<NUMBER>))
      return invalid_argument("the arguments differ in their types");
  for (auto buffer : {sorted_row, sorted_slot, used})
    if (!has_type(buffer, ffi::S32)) return invalid_argument("numbers of arrivals are not int32");
  const native::Options options = make_options(slots, 0, false, false, 0.0, 0.0, threads);
  const native::SortedArrivals<NUMBER> sorted{
      sorted_time.typed_data<NUMBER>(), sorted_row.typed_data<std::int32_t>(),
      sorted_slot.typed_data<std::int32_t>(), used.typed_data<std::int32_t>(), arrivals};
  native::integrated_backward<NUMBER, Model>(
      population, options, sorted, spike_time.typed_data<NUMBER>(),
      cotangent.typed_data<NUMBER>(),
      {by_weight->typed_data<NUMBER>(),
       with_parameters ? by_parameters->typed_data<NUMBER>() : nullptr,
       has_shape(*by_time, {batch, arrivals}) ? by_time->typed_data<NUMBER>() : nullptr});
  return ffi::Error::Success();
}

}  // namespace

HANDLER(jaxsnn_integrated_forward, IntegratedForward, "max_spikes", "counted", "once", "threads");
HANDLER(jaxsnn_integrated_backward, IntegratedBackward, "threads");
