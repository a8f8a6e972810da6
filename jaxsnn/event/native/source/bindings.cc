// XLA FFI handlers, the functions that JAX calls. They check types and shapes, so that kernels can
// rely on them, and return errors instead of throwing.
//
// Compiled once with NUMBER=float and once with NUMBER=double, into separate libraries. The array
// `parameters` is called `constants` in Python and in messages.

#include "ffi_calls.h"
#include "kernels.h"
#include "readout.h"
#include "scatter.h"
#include "stream_calls.h"

namespace {

/// Return for how many fields of the parameters a gradient is needed: all, those before the time
/// constants, or none.
Index count_fields(ffi::AnyBuffer by_parameters, Index positions, Index neurons) {
  for (const Index fields : {Index(native::kFields), native::kFieldsWithoutTaus})
    if (has_shape(by_parameters, {fields, positions, neurons})) return fields;
  return 0;
}

/// Read the arguments that all kernels share. Return the problem, or an empty string.
template <class T>
std::string read_population(ffi::AnyBuffer weight, ffi::AnyBuffer parameters, ffi::AnyBuffer time,
                            ffi::AnyBuffer t_end, native::Population<T>& population,
                            bool batch_has_positions = true, bool has_lists = false) {
  if (weight.dimensions().size() != 2) return "weight is not (rows, neurons)";
  if (parameters.dimensions().size() != 3) return "constants are not (fields, positions, neurons)";
  if (time.dimensions().size() != 2) return "time is not (batch, arrivals)";
  population.rows = weight.dimensions()[0];
  population.neurons = weight.dimensions()[1];
  population.positions = parameters.dimensions()[1];
  population.batch = time.dimensions()[0];
  population.arrivals = time.dimensions()[1];
  if (!has_shape(parameters, {native::kFields, population.positions,
                              has_lists ? parameters.dimensions()[2] : population.neurons}))
    return "constants are not (6, positions, neurons)";
  if (population.positions < 1 || (batch_has_positions && population.batch % population.positions))
    return "positions do not fit the batch";
  if (!has_shape(t_end, {})) return "t_end is not a scalar";
  for (auto buffer : {weight, parameters, time, t_end})
    if (!has_type(buffer, kType<T>)) return "the arguments differ in their types";
  if (population.arrivals >= std::numeric_limits<std::int32_t>::max() ||
      population.rows >= std::numeric_limits<std::int32_t>::max())
    return "more than 2^31 arrivals or rows";
  population.weight = weight.typed_data<T>();
  population.parameters = parameters.typed_data<T>();
  population.t_end = *t_end.typed_data<T>();
  return "";
}

ffi::Error LayerForward(ffi::AnyBuffer weight, ffi::AnyBuffer parameters, ffi::AnyBuffer time,
                        ffi::AnyBuffer row, ffi::AnyBuffer t_end,
                        ffi::Result<ffi::AnyBuffer> spike_time, ffi::Result<ffi::AnyBuffer> slope,
                        ffi::Result<ffi::AnyBuffer> slope_after, ffi::Result<ffi::AnyBuffer> count,
                        ffi::Result<ffi::AnyBuffer> cause, ffi::Result<ffi::AnyBuffer> sorted_time,
                        ffi::Result<ffi::AnyBuffer> sorted_row,
                        ffi::Result<ffi::AnyBuffer> sorted_slot, ffi::Result<ffi::AnyBuffer> used,
                        std::int64_t max_spikes, std::int64_t max_counted, bool once, bool subtract,
                        double refractory, bool jumps, bool strict, std::int64_t threads) {
  using T = NUMBER;
  native::Population<T> population;
  std::string problem = read_population<T>(weight, parameters, time, t_end, population);
  if (!problem.empty()) return invalid_argument(problem);
  const Index batch = population.batch, neurons = population.neurons;
  if (max_spikes < 1 || !(refractory >= 0)) return invalid_argument("max_spikes or refractory is out of range");
  const native::Options options =
      make_options(max_spikes, max_counted, once, subtract, refractory, 0.0, threads, jumps);
  population.strict = strict;
  const bool needs_slope_after = options.spike_sets_v();
  if (!has_shape(*cause, {batch, neurons, jumps ? max_spikes : 0}) ||
      !has_shape(*spike_time, {batch, neurons, max_spikes}) ||
      !has_shape(*slope, {batch, neurons, max_spikes}) ||
      !has_shape(*slope_after, {batch, neurons, needs_slope_after ? max_spikes : 0}) ||
      !has_shape(*count, {batch, neurons}))
    return invalid_argument("a result has the wrong shape");
  native::SortedArrivals<T> sorted;
  problem = check_and_sort_arrivals(population, time, row, options.threads, *sorted_time,
                                    *sorted_row, *sorted_slot, *used, sorted);
  if (!problem.empty()) return invalid_argument(problem);
  const native::Spikes<T> spikes{spike_time->typed_data<T>(), slope->typed_data<T>(),
                                 slope_after->typed_data<T>(), count->typed_data<std::int32_t>(),
                                 cause->typed_data<std::int32_t>()};
  prefer_large_pages(*spike_time, *slope, *slope_after, *cause);
  native::layer_forward(population, options, sorted, spikes);
  return ffi::Error::Success();
}

ffi::Error LayerRecorded(ffi::AnyBuffer weight, ffi::AnyBuffer parameters, ffi::AnyBuffer time,
                         ffi::AnyBuffer row, ffi::AnyBuffer t_end, ffi::AnyBuffer spike_time,
                         ffi::Result<ffi::AnyBuffer> slope, ffi::Result<ffi::AnyBuffer> sorted_time,
                         ffi::Result<ffi::AnyBuffer> sorted_row,
                         ffi::Result<ffi::AnyBuffer> sorted_slot, ffi::Result<ffi::AnyBuffer> used,
                         std::int64_t threads) {
  using T = NUMBER;
  native::Population<T> population;
  std::string problem = read_population<T>(weight, parameters, time, t_end, population);
  if (!problem.empty()) return invalid_argument(problem);
  const Index batch = population.batch, arrivals = population.arrivals,
              neurons = population.neurons;
  if (population.positions != 1) return invalid_argument("recorded spikes have no positions");
  if (spike_time.dimensions().size() != 3)
    return invalid_argument("spikes are not (batch, neurons, slots)");
  const Index slots = spike_time.dimensions()[2];
  const native::Options options = make_options(slots, 0, false, false, 0, 0, threads);
  if (!has_shape(spike_time, {batch, neurons, slots}) || !has_type(spike_time, kType<T>) ||
      !has_shape(*slope, {batch, neurons, slots}))
    return invalid_argument("recorded spikes have the wrong shape or type");
  native::SortedArrivals<T> sorted;
  problem = check_and_sort_arrivals(population, time, row, options.threads, *sorted_time,
                                    *sorted_row, *sorted_slot, *used, sorted);
  if (!problem.empty()) return invalid_argument(problem);
  native::recorded_slopes(population, options, sorted, spike_time.typed_data<T>(),
                          slope->typed_data<T>());
  return ffi::Error::Success();
}

ffi::Error LayerBackward(ffi::AnyBuffer weight, ffi::AnyBuffer parameters,
                         ffi::AnyBuffer sorted_time, ffi::AnyBuffer sorted_row,
                         ffi::AnyBuffer sorted_slot, ffi::AnyBuffer used, ffi::AnyBuffer t_end,
                         ffi::AnyBuffer spike_time, ffi::AnyBuffer slope,
                         ffi::AnyBuffer slope_after, ffi::AnyBuffer cause, ffi::AnyBuffer cotangent,
                         ffi::Result<ffi::AnyBuffer> by_weight,
                         ffi::Result<ffi::AnyBuffer> by_parameters,
                         ffi::Result<ffi::AnyBuffer> by_time, bool subtract, double refractory,
                         double min_slope, bool jumps, bool strict, std::int64_t threads) {
  using T = NUMBER;
  native::Population<T> population;
  std::string problem = read_population<T>(weight, parameters, sorted_time, t_end, population);
  if (!problem.empty()) return invalid_argument(problem);
  const Index batch = population.batch, arrivals = population.arrivals,
              neurons = population.neurons;
  if (spike_time.dimensions().size() != 3)
    return invalid_argument("spikes are not (batch, neurons, slots)");
  const Index slots = spike_time.dimensions()[2];
  const native::Options options =
      make_options(slots, 0, false, subtract, refractory, min_slope, threads, jumps);
  population.strict = strict;
  const bool needs_slope_after = options.spike_sets_v();
  if (!has_shape(cause, {batch, neurons, jumps ? slots : 0}) || !has_type(cause, ffi::S32) ||
      !has_shape(spike_time, {batch, neurons, slots}) ||
      !has_shape(slope, {batch, neurons, slots}) ||
      !has_shape(slope_after, {batch, neurons, needs_slope_after ? slots : 0}) ||
      !has_shape(cotangent, {batch, neurons, slots}) ||
      !has_shape(sorted_row, {batch, arrivals}) || !has_shape(sorted_slot, {batch, arrivals}) ||
      !has_shape(used, {batch}) || !has_shape(*by_weight, {population.rows, neurons}))
    return invalid_argument("an argument of the backward pass has the wrong shape");
  for (auto buffer : {spike_time, slope, slope_after, cotangent})
    if (!has_type(buffer, kType<T>))
      return invalid_argument("the arguments differ in their types");
  for (auto buffer : {sorted_row, sorted_slot, used})
    if (!has_type(buffer, ffi::S32)) return invalid_argument("numbers of arrivals are not int32");
  const Index fields = count_fields(*by_parameters, population.positions, neurons);
  const bool with_time = has_shape(*by_time, {batch, arrivals});
  const native::SortedArrivals<T> sorted{
      sorted_time.typed_data<T>(), sorted_row.typed_data<std::int32_t>(),
      sorted_slot.typed_data<std::int32_t>(), used.typed_data<std::int32_t>(), arrivals};
  const native::ForwardSpikes<T> spikes{spike_time.typed_data<T>(), slope.typed_data<T>(),
                                        slope_after.typed_data<T>(), cotangent.typed_data<T>(),
                                        cause.typed_data<std::int32_t>()};
  const native::Gradients<T> gradients{by_weight->typed_data<T>(),
                                       fields ? by_parameters->typed_data<T>() : nullptr, fields,
                                       with_time ? by_time->typed_data<T>() : nullptr};
  native::layer_backward(population, options, sorted, spikes, gradients, batch);
  return ffi::Error::Success();
}

/// Read the population of a group: its weights are a table (rows, neurons), or, if `begin` is not
/// empty, lists of synapses. Return the problem, or an empty string.
std::string read_group_weights(ffi::AnyBuffer weight, ffi::AnyBuffer begin, ffi::AnyBuffer target,
                               ffi::AnyBuffer parameters, ffi::AnyBuffer time,
                               ffi::AnyBuffer t_end, native::Population<NUMBER>& population,
                               native::Feedback<NUMBER>& feedback) {
  const bool has_lists = !has_shape(begin, {0});
  std::string problem =
      read_population<NUMBER>(weight, parameters, time, t_end, population, true, has_lists);
  if (!problem.empty() || !has_lists) return problem;
  const Index synapses = weight.dimensions()[0];
  if (begin.dimensions().size() != 1 || !has_shape(target, {synapses}) ||
      population.neurons != 1 || population.positions != 1)
    return "synapses are not (synapses,)";
  if (!has_type(begin, ffi::S32) || !has_type(target, ffi::S32))
    return "numbers of synapses are not int32";
  population.neurons = parameters.dimensions()[2];
  population.rows = begin.dimensions()[0] - 1;
  feedback.list_begin = begin.typed_data<std::int32_t>();
  feedback.list_target = target.typed_data<std::int32_t>();
  if (feedback.list_begin[0] != 0 || feedback.list_begin[population.rows] != synapses)
    return "the lists of synapses are incomplete";
  for (Index row = 0; row < population.rows; ++row)
    if (feedback.list_begin[row] > feedback.list_begin[row + 1])
      return "the lists of synapses overlap";
  for (Index n = 0; n < synapses; ++n)
    if (feedback.list_target[n] < 0 || feedback.list_target[n] >= population.neurons)
      return "a synapse has no target";
  return "";
}

/// Read the arguments that the kernels of linear neurons share. Return the problem, or an empty
/// string.
template <class T>
std::string read_linear(ffi::AnyBuffer weight, ffi::AnyBuffer coefficients, ffi::AnyBuffer arrival,
                        ffi::AnyBuffer time, ffi::AnyBuffer t_end,
                        native::Population<T>& population) {
  if (weight.dimensions().size() != 2) return "weight is not (rows, neurons)";
  if (time.dimensions().size() != 2) return "time is not (batch, arrivals)";
  if (arrival.dimensions().size() != 1) return "the effect of an arrival is not (variables,)";
  const Index variables = arrival.dimensions()[0];
  population = {time.dimensions()[0], time.dimensions()[1], weight.dimensions()[0],
                weight.dimensions()[1], 1};
  const Index fields = 2 * variables * variables + 2 * variables + 2;
  if (variables < 2 || variables > 4 || !has_shape(coefficients, {fields, population.neurons}))
    return "coefficients are not (fields, neurons)";
  if (!has_shape(t_end, {})) return "t_end is not a scalar";
  for (auto buffer : {weight, coefficients, arrival, time, t_end})
    if (!has_type(buffer, kType<T>)) return "the arguments differ in their types";
  if (population.arrivals >= std::numeric_limits<std::int32_t>::max() ||
      population.rows >= std::numeric_limits<std::int32_t>::max())
    return "more than 2^31 arrivals or rows";
  population.weight = weight.typed_data<T>();
  population.parameters = coefficients.typed_data<T>();
  population.t_end = *t_end.typed_data<T>();
  return "";
}

/// Call with the number of variables, 2 to 4, as a compile-time constant.
template <class Call>
void dispatch_variables(Index variables, Call&& call) {
  if (variables == 2) return call(std::integral_constant<int, 2>());
  if (variables == 3) return call(std::integral_constant<int, 3>());
  call(std::integral_constant<int, 4>());
}

ffi::Error LinearForward(ffi::AnyBuffer weight, ffi::AnyBuffer coefficients,
                         ffi::AnyBuffer arrival, ffi::AnyBuffer time, ffi::AnyBuffer row,
                         ffi::AnyBuffer t_end, ffi::Result<ffi::AnyBuffer> spike_time,
                         ffi::Result<ffi::AnyBuffer> slope, ffi::Result<ffi::AnyBuffer> state,
                         ffi::Result<ffi::AnyBuffer> count,
                         ffi::Result<ffi::AnyBuffer> sorted_time,
                         ffi::Result<ffi::AnyBuffer> sorted_row,
                         ffi::Result<ffi::AnyBuffer> sorted_slot, ffi::Result<ffi::AnyBuffer> used,
                         std::int64_t max_spikes, std::int64_t max_counted, bool once,
                         std::int64_t threads) {
  using T = NUMBER;
  native::Population<T> population;
  std::string problem = read_linear<T>(weight, coefficients, arrival, time, t_end, population);
  if (!problem.empty()) return invalid_argument(problem);
  const Index batch = population.batch, neurons = population.neurons;
  const Index variables = arrival.dimensions()[0];
  if (max_spikes < 1) return invalid_argument("max_spikes is out of range");
  const native::Options options =
      make_options(max_spikes, max_counted, once, false, 0.0, 0.0, threads);
  if (!has_shape(*spike_time, {batch, neurons, max_spikes}) ||
      !has_shape(*slope, {batch, neurons, max_spikes}) ||
      !has_shape(*state, {batch, neurons, max_spikes, variables}) ||
      !has_shape(*count, {batch, neurons}))
    return invalid_argument("a result has the wrong shape");
  native::SortedArrivals<T> sorted;
  problem = check_and_sort_arrivals(population, time, row, options.threads, *sorted_time,
                                    *sorted_row, *sorted_slot, *used, sorted);
  if (!problem.empty()) return invalid_argument(problem);
  prefer_large_pages(*spike_time, *slope, *state);
  const native::LinearSpikes<T> spikes{spike_time->typed_data<T>(), slope->typed_data<T>(),
                                       state->typed_data<T>(), count->typed_data<std::int32_t>()};
  dispatch_variables(variables, [&](auto size) {
    native::linear_forward<T, decltype(size)::value>(population, arrival.typed_data<T>(), options,
                                                     sorted, spikes);
  });
  return ffi::Error::Success();
}

ffi::Error LinearBackward(ffi::AnyBuffer weight, ffi::AnyBuffer coefficients,
                          ffi::AnyBuffer arrival, ffi::AnyBuffer a_by, ffi::AnyBuffer sorted_time,
                          ffi::AnyBuffer sorted_row, ffi::AnyBuffer sorted_slot,
                          ffi::AnyBuffer used, ffi::AnyBuffer t_end, ffi::AnyBuffer spike_time,
                          ffi::AnyBuffer slope, ffi::AnyBuffer state, ffi::AnyBuffer cotangent,
                          ffi::Result<ffi::AnyBuffer> by_weight,
                          ffi::Result<ffi::AnyBuffer> by_level,
                          ffi::Result<ffi::AnyBuffer> by_flow, ffi::Result<ffi::AnyBuffer> by_time,
                          std::int64_t threads) {
  using T = NUMBER;
  native::Population<T> population;
  std::string problem =
      read_linear<T>(weight, coefficients, arrival, sorted_time, t_end, population);
  if (!problem.empty()) return invalid_argument(problem);
  const Index batch = population.batch, arrivals = population.arrivals,
              neurons = population.neurons, variables = arrival.dimensions()[0];
  if (spike_time.dimensions().size() != 3 || a_by.dimensions().size() != 3)
    return invalid_argument("an argument has the wrong number of axes");
  const Index slots = spike_time.dimensions()[2], parameters = a_by.dimensions()[0];
  const Index levels = variables * variables + 2 * variables + 1;
  const bool with_levels = has_shape(*by_level, {levels, neurons});
  if (parameters > native::kMaxFlowParameters ||
      !has_shape(a_by, {parameters, variables * variables, neurons}) ||
      !has_shape(spike_time, {batch, neurons, slots}) ||
      !has_shape(slope, {batch, neurons, slots}) ||
      !has_shape(state, {batch, neurons, slots, variables}) ||
      !has_shape(cotangent, {batch, neurons, slots}) ||
      !has_shape(sorted_row, {batch, arrivals}) || !has_shape(sorted_slot, {batch, arrivals}) ||
      !has_shape(used, {batch}) || !has_shape(*by_weight, {population.rows, neurons}) ||
      !(with_levels || has_shape(*by_level, {0, neurons})) ||
      !has_shape(*by_flow, {parameters, neurons}))
    return invalid_argument("an argument of the backward pass has the wrong shape");
  for (auto buffer : {a_by, spike_time, slope, state, cotangent})
    if (!has_type(buffer, kType<T>))
      return invalid_argument("the arguments differ in their types");
  for (auto buffer : {sorted_row, sorted_slot, used})
    if (!has_type(buffer, ffi::S32)) return invalid_argument("numbers of arrivals are not int32");
  const native::Options options = make_options(slots, 0, false, false, 0.0, 0.0, threads);
  const native::SortedArrivals<T> sorted{
      sorted_time.typed_data<T>(), sorted_row.typed_data<std::int32_t>(),
      sorted_slot.typed_data<std::int32_t>(), used.typed_data<std::int32_t>(), arrivals};
  const native::LinearForwardSpikes<T> spikes{spike_time.typed_data<T>(), slope.typed_data<T>(),
                                              state.typed_data<T>(), cotangent.typed_data<T>()};
  const native::LinearGradients<T> gradients{
      by_weight->typed_data<T>(),
      with_levels ? by_level->typed_data<T>() : nullptr,
      by_flow->typed_data<T>(),
      has_shape(*by_time, {batch, arrivals}) ? by_time->typed_data<T>() : nullptr,
      a_by.typed_data<T>(),
      parameters};
  dispatch_variables(variables, [&](auto size) {
    native::linear_backward<T, decltype(size)::value>(population, arrival.typed_data<T>(), options,
                                                      sorted, spikes, gradients);
  });
  return ffi::Error::Success();
}

/// Read the results of a group. Return the problem, or an empty string.
std::string read_group(const native::Population<NUMBER>& population, ffi::AnyBuffer spikes,
                       ffi::AnyBuffer slopes, ffi::AnyBuffer count, ffi::AnyBuffer train,
                       ffi::AnyBuffer neuron, ffi::AnyBuffer total, ffi::AnyBuffer wait,
                       ffi::AnyBuffer row, ffi::AnyBuffer slope, ffi::AnyBuffer used,
                       ffi::AnyBuffer origin, const native::Feedback<NUMBER>& feedback,
                       native::Spikes<NUMBER>& spike_arrays,
                       native::SpikeTrain<NUMBER>& spike_train,
                       native::EventLog<NUMBER>& event_log) {
  const Index batch = population.batch, neurons = population.neurons;
  if (population.positions != 1 || feedback.first_delayed_row(population) < 0)
    return "the table has no rows of feedback";
  if (spikes.dimensions().size() != 3 || train.dimensions().size() != 2 ||
      wait.dimensions().size() != 2)
    return "results have the wrong number of axes";
  const Index slots = spikes.dimensions()[2];
  spike_train.events = train.dimensions()[1];
  event_log.steps = wait.dimensions()[1];
  if (!has_shape(spikes, {batch, neurons, slots}) || !has_shape(slopes, {batch, neurons, slots}) ||
      !has_shape(count, {batch, neurons}) || !has_shape(train, {batch, spike_train.events}) ||
      !has_shape(neuron, {batch, spike_train.events}) || !has_shape(total, {batch}) ||
      !has_shape(wait, {batch, event_log.steps}) || !has_shape(row, {batch, event_log.steps}) ||
      !has_shape(slope, {batch, event_log.steps}) || !has_shape(used, {batch}) ||
      !(has_shape(origin, {batch, event_log.steps}) || has_shape(origin, {batch, 0})))
    return "an array of the group has the wrong shape";
  for (auto buffer : {spikes, slopes, train, wait, slope})
    if (!has_type(buffer, kType<NUMBER>)) return "the arguments differ in their types";
  for (auto buffer : {count, neuron, total, row, used, origin})
    if (!has_type(buffer, ffi::S32)) return "numbers of spikes are not int32";
  spike_arrays = {spikes.typed_data<NUMBER>(), slopes.typed_data<NUMBER>(), nullptr,
                  count.typed_data<std::int32_t>()};
  spike_train.time = train.typed_data<NUMBER>();
  spike_train.neuron = neuron.typed_data<std::int32_t>();
  spike_train.total = total.typed_data<std::int32_t>();
  event_log.wait = wait.typed_data<NUMBER>();
  event_log.row = row.typed_data<std::int32_t>();
  event_log.slope = slope.typed_data<NUMBER>();
  event_log.used = used.typed_data<std::int32_t>();
  const bool has_origin = origin.dimensions()[1] == event_log.steps;
  event_log.origin = has_origin ? origin.typed_data<std::int32_t>() : nullptr;
  return "";
}

/// Read the delayed projections of a group. Return the problem, or an empty string.
std::string read_feedback(const native::Population<NUMBER>& population, ffi::AnyBuffer delay,
                          ffi::AnyBuffer sender, ffi::AnyBuffer refractory, bool immediate,
                          native::Feedback<NUMBER>& feedback) {
  if (delay.dimensions().size() != 1) return "delays are not (rows,)";
  feedback.immediate = immediate;
  feedback.delayed = delay.dimensions()[0];
  if (!has_shape(sender, {feedback.delayed})) return "the number of senders is not that of the delays";
  const bool has_refractory = has_shape(refractory, {population.neurons});
  if (!has_refractory && !has_shape(refractory, {0})) return "refractory times are not (neurons,)";
  for (auto buffer : {delay, refractory})
    if (!has_type(buffer, kType<NUMBER>)) return "the arguments differ in their types";
  if (!has_type(sender, ffi::S32)) return "senders are not int32";
  feedback.delay = delay.typed_data<NUMBER>();
  feedback.sender = sender.typed_data<std::int32_t>();
  feedback.refractory = has_refractory ? refractory.typed_data<NUMBER>() : nullptr;
  return "";
}

/// Read the immediate weights that are not in the table, if any. Return the problem, or an empty
/// string.
std::string read_immediate_weights(native::Population<NUMBER>& population, ffi::AnyBuffer by_target,
                                   ffi::AnyBuffer scale, bool immediate,
                                   native::Feedback<NUMBER>& feedback) {
  const Index neurons = population.neurons;
  if (!has_type(by_target, kType<NUMBER>) || !has_type(scale, kType<NUMBER>))
    return "the arguments differ in their types";
  if (has_shape(by_target, {0, 0})) return "";
  if (!immediate || !has_shape(by_target, {neurons, neurons}) || !has_shape(scale, {neurons}))
    return "weights without a delay are not (targets, sources), or their scale is not (targets,)";
  population.rows += neurons;
  if (population.rows >= std::numeric_limits<std::int32_t>::max()) return "more than 2^31 rows";
  feedback.by_target = by_target.typed_data<NUMBER>();
  feedback.scale = scale.typed_data<NUMBER>();
  return "";
}

ffi::Error GroupForward(ffi::AnyBuffer weight, ffi::AnyBuffer list_begin,
                        ffi::AnyBuffer list_target, ffi::AnyBuffer by_target, ffi::AnyBuffer scale,
                        ffi::AnyBuffer parameters, ffi::AnyBuffer time, ffi::AnyBuffer row,
                        ffi::AnyBuffer t_end, ffi::AnyBuffer delay, ffi::AnyBuffer sender,
                        ffi::AnyBuffer refractory, ffi::Result<ffi::AnyBuffer> spikes,
                        ffi::Result<ffi::AnyBuffer> slopes, ffi::Result<ffi::AnyBuffer> count,
                        ffi::Result<ffi::AnyBuffer> train, ffi::Result<ffi::AnyBuffer> neuron,
                        ffi::Result<ffi::AnyBuffer> total, ffi::Result<ffi::AnyBuffer> wait,
                        ffi::Result<ffi::AnyBuffer> log_row, ffi::Result<ffi::AnyBuffer> slope,
                        ffi::Result<ffi::AnyBuffer> used, ffi::Result<ffi::AnyBuffer> origin,
                        ffi::Result<ffi::AnyBuffer> sorted_time,
                        ffi::Result<ffi::AnyBuffer> sorted_row,
                        ffi::Result<ffi::AnyBuffer> sorted_slot,
                        ffi::Result<ffi::AnyBuffer> sorted_used,
                        ffi::Result<ffi::AnyBuffer> finite_check, std::int64_t max_spikes,
                        bool once, bool subtract, bool immediate, std::int64_t threads) {
  using T = NUMBER;
  native::Population<T> population;
  native::Feedback<T> feedback = {};
  std::string problem = read_group_weights(weight, list_begin, list_target, parameters, time,
                                           t_end, population, feedback);
  if (!problem.empty()) return invalid_argument(problem);
  problem = read_immediate_weights(population, by_target, scale, immediate, feedback);
  if (!problem.empty()) return invalid_argument(problem);
  problem = read_feedback(population, delay, sender, refractory, immediate, feedback);
  if (!problem.empty()) return invalid_argument(problem);
  native::Spikes<T> spike_arrays;
  native::SpikeTrain<T> spike_train;
  native::EventLog<T> event_log;
  problem =
      read_group(population, *spikes, *slopes, *count, *train, *neuron, *total, *wait, *log_row,
                 *slope, *used, *origin, feedback, spike_arrays, spike_train, event_log);
  if (!problem.empty()) return invalid_argument(problem);
  if (feedback.uses_queue() && !event_log.origin && event_log.steps > 0)
    return invalid_argument("the log has no origins");
  if (spikes->dimensions()[2] != max_spikes || max_spikes < 1 || !has_shape(*finite_check, {}) ||
      !has_type(*finite_check, kType<T>))
    return invalid_argument("a result has the wrong shape");
  const native::Options options = make_options(max_spikes, 0, once, subtract, 0, 0, threads);
  native::SortedArrivals<T> sorted;
  native::SortedCopy<T> sorted_copy;
  if (event_log.steps == 0 && has_shape(*sorted_time, {population.batch, 0})) {
    const bool shared = has_shape(row, {population.arrivals});
    if (!has_type(row, ffi::S32) || !has_shape(*sorted_used, {population.batch}) ||
        !(shared || has_shape(row, {population.batch, population.arrivals})))
      return invalid_argument("rows are not (arrivals,) or (batch, arrivals) int32");
    sorted = sorted_copy.sort(population, time.typed_data<T>(), row.typed_data<std::int32_t>(),
                              shared, options.threads, sorted_used->typed_data<std::int32_t>());
  } else {
    problem = check_and_sort_arrivals(population, time, row, options.threads, *sorted_time,
                                      *sorted_row, *sorted_slot, *sorted_used, sorted);
  }
  if (!problem.empty()) return invalid_argument(problem);
  prefer_large_pages(*spikes, *slopes);
  *finite_check->typed_data<T>() = native::group_forward(population, options, feedback, sorted,
                                                         spike_arrays, spike_train, event_log);
  return ffi::Error::Success();
}

ffi::Error GroupBackward(ffi::AnyBuffer weight, ffi::AnyBuffer list_begin,
                         ffi::AnyBuffer list_target, ffi::AnyBuffer by_target,
                         ffi::AnyBuffer scale, ffi::AnyBuffer parameters, ffi::AnyBuffer t_end,
                         ffi::AnyBuffer delay, ffi::AnyBuffer sender, ffi::AnyBuffer refractory,
                         ffi::AnyBuffer spikes,
                         ffi::AnyBuffer slopes, ffi::AnyBuffer count, ffi::AnyBuffer train,
                         ffi::AnyBuffer neuron, ffi::AnyBuffer total, ffi::AnyBuffer wait,
                         ffi::AnyBuffer log_row, ffi::AnyBuffer slope, ffi::AnyBuffer used,
                         ffi::AnyBuffer origin, ffi::AnyBuffer sorted_time,
                         ffi::AnyBuffer sorted_row, ffi::AnyBuffer sorted_slot,
                         ffi::AnyBuffer sorted_used, ffi::AnyBuffer by_spikes,
                         ffi::AnyBuffer by_train, ffi::Result<ffi::AnyBuffer> by_weight,
                         ffi::Result<ffi::AnyBuffer> by_parameters,
                         ffi::Result<ffi::AnyBuffer> by_time, ffi::Result<ffi::AnyBuffer> by_delay,
                         bool subtract, bool immediate, double min_slope, std::int64_t threads) {
  using T = NUMBER;
  native::Population<T> population;
  native::Feedback<T> feedback = {};
  std::string problem = read_group_weights(weight, list_begin, list_target, parameters, sorted_time,
                                           t_end, population, feedback);
  if (!problem.empty()) return invalid_argument(problem);
  problem = read_immediate_weights(population, by_target, scale, immediate, feedback);
  if (!problem.empty()) return invalid_argument(problem);
  problem = read_feedback(population, delay, sender, refractory, immediate, feedback);
  if (!problem.empty()) return invalid_argument(problem);
  native::Spikes<T> spike_arrays;
  native::SpikeTrain<T> spike_train;
  native::EventLog<T> event_log;
  problem = read_group(population, spikes, slopes, count, train, neuron, total, wait, log_row,
                       slope, used, origin, feedback, spike_arrays, spike_train, event_log);
  if (!problem.empty()) return invalid_argument(problem);
  const Index batch = population.batch, arrivals = population.arrivals,
              neurons = population.neurons;
  const Index slots = spikes.dimensions()[2];
  const bool has_weight_gradient =
      feedback.list_begin ? has_shape(*by_weight, {feedback.list_begin[population.rows], 1})
                          : has_shape(*by_weight, {population.rows, neurons});
  if (!has_shape(by_spikes, {batch, neurons, slots}) ||
      !has_shape(by_train, {batch, spike_train.events}) ||
      !has_shape(sorted_row, {batch, arrivals}) || !has_shape(sorted_slot, {batch, arrivals}) ||
      !has_shape(sorted_used, {batch}) || !has_weight_gradient ||
      !has_shape(*by_delay, {feedback.delayed}))
    return invalid_argument("an argument of the backward pass has the wrong shape");
  for (auto buffer : {by_spikes, by_train})
    if (!has_type(buffer, kType<T>))
      return invalid_argument("the arguments differ in their types");
  for (auto buffer : {sorted_row, sorted_slot, sorted_used})
    if (!has_type(buffer, ffi::S32)) return invalid_argument("numbers of arrivals are not int32");
  const Index fields = count_fields(*by_parameters, 1, neurons);
  const bool with_time = has_shape(*by_time, {batch, arrivals});
  const native::Options options = make_options(slots, 0, false, subtract, 0, min_slope, threads);
  const native::SortedArrivals<T> sorted{
      sorted_time.typed_data<T>(), sorted_row.typed_data<std::int32_t>(),
      sorted_slot.typed_data<std::int32_t>(), sorted_used.typed_data<std::int32_t>(), arrivals};
  const native::Cotangents<T> cotangents{by_spikes.typed_data<T>(), by_train.typed_data<T>()};
  const native::Gradients<T> gradients{by_weight->typed_data<T>(),
                                       fields ? by_parameters->typed_data<T>() : nullptr, fields,
                                       with_time ? by_time->typed_data<T>() : nullptr};
  native::group_backward(population, options, feedback, sorted, spike_arrays, spike_train,
                         event_log, cotangents, gradients, by_delay->typed_data<T>());
  return ffi::Error::Success();
}

/// Read the targets of channels. Return the problem, or an empty string.
std::string read_taps(const native::Population<NUMBER>& population, ffi::AnyBuffer time,
                      ffi::AnyBuffer channel, ffi::AnyBuffer position, ffi::AnyBuffer row,
                      native::TapTable<NUMBER>& taps) {
  taps.samples = population.batch;
  if (!has_shape(channel, {population.batch, population.arrivals}))
    return "channels are not (batch, events)";
  if (position.dimensions().size() != 2) return "places are not (channels, taps)";
  taps.channels = position.dimensions()[0];
  taps.taps = position.dimensions()[1];
  if (!has_shape(row, {taps.channels, taps.taps})) return "rows are not (channels, taps)";
  for (auto buffer : {channel, position, row})
    if (!has_type(buffer, ffi::S32)) return "channels, places or rows are not int32";
  taps.time = time.typed_data<NUMBER>();
  taps.channel = channel.typed_data<std::int32_t>();
  taps.position = position.typed_data<std::int32_t>();
  taps.row = row.typed_data<std::int32_t>();
  return "";
}

/// Read the arguments that the scatter kernels share; events are (samples, events).
std::string read_scatter_inputs(ffi::AnyBuffer weight, ffi::AnyBuffer parameters,
                                ffi::AnyBuffer time, ffi::AnyBuffer channel,
                                ffi::AnyBuffer position, ffi::AnyBuffer row, ffi::AnyBuffer t_end,
                                native::Population<NUMBER>& population,
                                native::TapTable<NUMBER>& taps) {
  if (parameters.dimensions().size() != 3) return "constants are not (fields, positions, neurons)";
  std::string problem = read_population<NUMBER>(weight, parameters, time, t_end, population, false);
  if (problem.empty()) problem = read_taps(population, time, channel, position, row, taps);
  population.batch *= population.positions;
  population.position_minor = true;
  return problem;
}

ffi::Error ScatterForward(ffi::AnyBuffer weight, ffi::AnyBuffer parameters, ffi::AnyBuffer time,
                          ffi::AnyBuffer channel, ffi::AnyBuffer position, ffi::AnyBuffer row,
                          ffi::AnyBuffer t_end, ffi::Result<ffi::AnyBuffer> spike_time,
                          ffi::Result<ffi::AnyBuffer> slope,
                          ffi::Result<ffi::AnyBuffer> slope_after,
                          ffi::Result<ffi::AnyBuffer> count, ffi::Result<ffi::AnyBuffer> cause,
                          ffi::Result<ffi::AnyBuffer> first_time,
                          ffi::Result<ffi::AnyBuffer> first_slope,
                          ffi::Result<ffi::AnyBuffer> first_slope_after,
                          ffi::Result<ffi::AnyBuffer> first_cause,
                          ffi::Result<ffi::AnyBuffer> first_slot, std::int64_t max_spikes,
                          std::int64_t max_counted, bool once, bool subtract, double refractory,
                          bool jumps, bool strict, std::int64_t threads) {
  using T = NUMBER;
  native::Population<T> population;
  native::TapTable<T> taps;
  std::string problem = read_scatter_inputs(weight, parameters, time, channel, position, row,
                                            t_end, population, taps);
  if (!problem.empty()) return invalid_argument(problem);
  if (max_spikes < 1 || !(refractory >= 0)) return invalid_argument("max_spikes or refractory is out of range");
  const Index samples = taps.samples, all_neurons = population.neurons * population.positions;
  const native::Options options =
      make_options(max_spikes, max_counted, once, subtract, refractory, 0.0, threads, jumps);
  population.strict = strict;
  if (spike_time->dimensions().size() != 3 || first_time->dimensions().size() != 2)
    return invalid_argument("spikes are not (batch, neurons, slots) and (batch, events)");
  const Index slots = spike_time->dimensions()[2] ? max_spikes : 0;
  const Index capacity = first_time->dimensions()[1];
  const bool sets_v = options.spike_sets_v();
  if (!has_shape(*cause, {samples, all_neurons, jumps ? slots : 0}) ||
      !has_shape(*spike_time, {samples, all_neurons, slots}) ||
      !has_shape(*slope, {samples, all_neurons, slots}) ||
      !has_shape(*slope_after, {samples, all_neurons, sets_v ? slots : 0}) ||
      !has_shape(*count, {samples, all_neurons}) || !has_shape(*first_time, {samples, capacity}) ||
      !has_shape(*first_slope, {samples, capacity}) ||
      !has_shape(*first_slope_after, {samples, sets_v ? capacity : 0}) ||
      !has_shape(*first_cause, {samples, jumps ? capacity : 0}) ||
      !has_shape(*first_slot, {samples, capacity}) || capacity > all_neurons * max_spikes ||
      all_neurons * max_spikes >= std::numeric_limits<std::int32_t>::max())
    return invalid_argument("a result has the wrong shape");
  const native::Spikes<T> spikes{slots ? spike_time->typed_data<T>() : nullptr,
                                 slope->typed_data<T>(), slope_after->typed_data<T>(),
                                 count->typed_data<std::int32_t>(),
                                 cause->typed_data<std::int32_t>()};
  const native::EarliestSpikes<T> earliest{
      {first_time->typed_data<T>(), first_slope->typed_data<T>(),
       first_slope_after->typed_data<T>(), nullptr, first_cause->typed_data<std::int32_t>()},
      first_slot->typed_data<std::int32_t>(),
      capacity};
  prefer_large_pages(*spike_time, *slope, *slope_after, *cause);
  native::scatter_forward(population, options, taps, spikes, earliest);
  return ffi::Error::Success();
}

ffi::Error ScatterBackward(ffi::AnyBuffer weight, ffi::AnyBuffer parameters, ffi::AnyBuffer time,
                           ffi::AnyBuffer channel, ffi::AnyBuffer position, ffi::AnyBuffer row,
                           ffi::AnyBuffer t_end, ffi::AnyBuffer spike_time, ffi::AnyBuffer slope,
                           ffi::AnyBuffer slope_after, ffi::AnyBuffer cause,
                           ffi::AnyBuffer cotangent, ffi::AnyBuffer spike_slot,
                           ffi::Result<ffi::AnyBuffer> by_weight,
                           ffi::Result<ffi::AnyBuffer> by_parameters,
                           ffi::Result<ffi::AnyBuffer> by_time, std::int64_t max_spikes,
                           bool subtract, double refractory, double min_slope, bool jumps,
                           bool strict, std::int64_t threads) {
  using T = NUMBER;
  native::Population<T> population;
  native::TapTable<T> taps;
  std::string problem = read_scatter_inputs(weight, parameters, time, channel, position, row,
                                            t_end, population, taps);
  if (!problem.empty()) return invalid_argument(problem);
  const Index samples = taps.samples, all_neurons = population.neurons * population.positions;
  if (spike_time.dimensions().size() != 2 || max_spikes < 1)
    return invalid_argument("spikes are not (batch, events)");
  const native::Options options =
      make_options(max_spikes, 0, false, subtract, refractory, min_slope, threads, jumps);
  population.strict = strict;
  const Index spike_count = spike_time.dimensions()[1];
  const bool has_slots = has_shape(spike_slot, {samples, spike_count});
  if (!(has_slots || (has_shape(spike_slot, {samples, 0}) &&
                      spike_count == all_neurons * max_spikes)) ||
      !has_shape(cause, {samples, jumps ? spike_count : 0}) ||
      !has_shape(slope, {samples, spike_count}) ||
      !has_shape(slope_after, {samples, options.spike_sets_v() ? spike_count : 0}) ||
      !has_shape(cotangent, {samples, spike_count}) ||
      !has_shape(*by_weight, {population.rows, population.neurons}))
    return invalid_argument("an argument of the backward pass has the wrong shape");
  for (auto buffer : {spike_time, slope, slope_after, cotangent})
    if (!has_type(buffer, kType<T>))
      return invalid_argument("the arguments differ in their types");
  if (!has_type(cause, ffi::S32) || !has_type(spike_slot, ffi::S32))
    return invalid_argument("numbers of arrivals or slots are not int32");
  const Index fields = count_fields(*by_parameters, population.positions, population.neurons);
  const bool with_time = has_shape(*by_time, {samples, population.arrivals});
  const native::ForwardSpikes<T> spikes{spike_time.typed_data<T>(), slope.typed_data<T>(),
                                        slope_after.typed_data<T>(), cotangent.typed_data<T>(),
                                        cause.typed_data<std::int32_t>()};
  const native::Gradients<T> gradients{by_weight->typed_data<T>(),
                                       fields ? by_parameters->typed_data<T>() : nullptr, fields,
                                       with_time ? by_time->typed_data<T>() : nullptr};
  const native::StoredSpikes<T> stored{
      spikes, has_slots ? spike_slot.typed_data<std::int32_t>() : nullptr, spike_count};
  native::scatter_backward(population, options, taps, stored, gradients);
  return ffi::Error::Success();
}

/// Inputs of a readout; `time` holds the arrivals and the times of readings, which are sorted here.
template <class T>
class ReadoutInputs {
 public:
  ReadoutInputs(ffi::AnyBuffer weight, ffi::AnyBuffer parameters, ffi::AnyBuffer time,
                ffi::AnyBuffer row, ffi::AnyBuffer t_end, ffi::AnyBuffer voltage,
                std::int64_t requested_threads)
      : threads(std::clamp<Index>(requested_threads, 1, 1024)) {
    problem = read_population<T>(weight, parameters, time, t_end, population);
    if (!problem.empty()) return;
    const Index entries = population.batch * population.arrivals;
    const bool shared = has_shape(row, {population.arrivals});
    if (!has_type(row, ffi::S32) ||
        !(shared || has_shape(row, {population.batch, population.arrivals})))
      problem = "rows are not (arrivals,) or (batch, arrivals) int32";
    else if (population.positions != 1)
      problem = "a readout has one position";
    else if (voltage.dimensions().size() != 3 || !has_type(voltage, kType<T>))
      problem = "voltages are not (batch, samples, neurons)";
    else if (samples = voltage.dimensions()[1];
             !has_shape(voltage, {population.batch, samples, population.neurons}) ||
             samples > population.arrivals)
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

ffi::Error ReadoutForward(ffi::AnyBuffer weight, ffi::AnyBuffer parameters, ffi::AnyBuffer time,
                          ffi::AnyBuffer row, ffi::AnyBuffer t_end,
                          ffi::Result<ffi::AnyBuffer> voltage, bool jumps, std::int64_t threads) {
  using T = NUMBER;
  const ReadoutInputs<T> inputs(weight, parameters, time, row, t_end, *voltage, threads);
  if (!inputs.problem.empty()) return invalid_argument(inputs.problem);
  native::readout_forward(inputs.population, inputs.sorted, jumps, inputs.samples, inputs.threads,
                          voltage->typed_data<T>());
  return ffi::Error::Success();
}

ffi::Error ReadoutBackward(ffi::AnyBuffer weight, ffi::AnyBuffer parameters, ffi::AnyBuffer time,
                           ffi::AnyBuffer row, ffi::AnyBuffer t_end, ffi::AnyBuffer cotangent,
                           ffi::Result<ffi::AnyBuffer> by_weight,
                           ffi::Result<ffi::AnyBuffer> by_parameters,
                           ffi::Result<ffi::AnyBuffer> by_time, bool jumps, std::int64_t threads) {
  using T = NUMBER;
  const ReadoutInputs<T> inputs(weight, parameters, time, row, t_end, cotangent, threads);
  if (!inputs.problem.empty()) return invalid_argument(inputs.problem);
  const native::Population<T>& population = inputs.population;
  if (!has_shape(*by_weight, {population.rows, population.neurons}))
    return invalid_argument("an argument of the backward pass has the wrong shape");
  const Index fields = count_fields(*by_parameters, 1, population.neurons);
  const bool with_time =
      has_shape(*by_time, {population.batch, population.arrivals - inputs.samples});
  const native::Gradients<T> gradients{by_weight->typed_data<T>(),
                                       fields ? by_parameters->typed_data<T>() : nullptr, fields,
                                       with_time ? by_time->typed_data<T>() : nullptr};
  native::readout_backward(population, inputs.sorted, jumps, inputs.samples, inputs.threads,
                           cotangent.typed_data<T>(), gradients);
  return ffi::Error::Success();
}

ffi::Error Earliest(ffi::AnyBuffer time, ffi::Result<ffi::AnyBuffer> slots, std::int64_t threads) {
  if (time.dimensions().size() != 2 || slots->dimensions().size() != 2)
    return invalid_argument("times are not (batch, events)");
  const Index batch = time.dimensions()[0], events = time.dimensions()[1];
  const Index capacity = slots->dimensions()[1];
  if (!has_type(time, kType<NUMBER>) || !has_type(*slots, ffi::S32) ||
      !has_shape(*slots, {batch, capacity}) || capacity > events ||
      events >= std::numeric_limits<std::int32_t>::max())
    return invalid_argument("places do not fit the events");
  const NUMBER* const times = time.typed_data<NUMBER>();
  std::int32_t* const places = slots->typed_data<std::int32_t>();
  const Index workers = std::clamp<Index>(threads, 1, 1024);
  native::ThreadPool::shared().run(batch, workers, [=](Index sample) {
    native::find_earliest(times + sample * events, events, capacity, places + sample * capacity);
  });
  return ffi::Error::Success();
}

ffi::Error Transpose(ffi::AnyBuffer matrix, ffi::Result<ffi::AnyBuffer> transposed,
                     std::int64_t threads) {
  if (matrix.dimensions().size() != 2) return invalid_argument("the argument is not a matrix");
  const Index rows = matrix.dimensions()[0], columns = matrix.dimensions()[1];
  if (!has_type(matrix, kType<NUMBER>) || !has_type(*transposed, kType<NUMBER>) ||
      !has_shape(*transposed, {columns, rows}))
    return invalid_argument("the result has not the shape of the transposed matrix");
  prefer_large_pages(*transposed);
  native::transpose(matrix.typed_data<NUMBER>(), rows, columns,
                    std::clamp<Index>(threads, 1, 1024), transposed->typed_data<NUMBER>(), rows);
  return ffi::Error::Success();
}

}  // namespace

HANDLER(jaxsnn_layer_forward, LayerForward, "max_spikes", "counted", "once", "subtract",
        "refractory", "jumps", "strict", "threads");
HANDLER(jaxsnn_layer_recorded, LayerRecorded, "threads");
HANDLER(jaxsnn_layer_backward, LayerBackward, "subtract", "refractory", "min_slope", "jumps",
        "strict", "threads");
HANDLER(jaxsnn_linear_forward, LinearForward, "max_spikes", "counted", "once", "threads");
HANDLER(jaxsnn_linear_backward, LinearBackward, "threads");
HANDLER(jaxsnn_group_forward, GroupForward, "max_spikes", "once", "subtract", "immediate",
        "threads");
HANDLER(jaxsnn_group_backward, GroupBackward, "subtract", "immediate", "min_slope", "threads");
HANDLER(jaxsnn_scatter_forward, ScatterForward, "max_spikes", "counted", "once", "subtract",
        "refractory", "jumps", "strict", "threads");
HANDLER(jaxsnn_scatter_backward, ScatterBackward, "max_spikes", "subtract", "refractory",
        "min_slope", "jumps", "strict", "threads");
HANDLER(jaxsnn_readout_forward, ReadoutForward, "jumps", "threads");
HANDLER(jaxsnn_readout_backward, ReadoutBackward, "jumps", "threads");
HANDLER(jaxsnn_earliest, Earliest, "threads");
HANDLER(jaxsnn_transpose, Transpose, "threads");
