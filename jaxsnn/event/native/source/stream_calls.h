// C interface of streams for ctypes: a handle, numbers and arrays, whose sizes the caller
// guarantees. Each function returns a number; if it is -1, `jaxsnn_stream_problem` returns the
// error message.

#pragma once

#include "stream.h"

namespace native {

/// Result of calls that are not finished: Python handles signals and calls again.
constexpr Index kMore = -3;

/// Call on a stream. An exception becomes the stream's problem, after which no call does anything.
template <class Call>
std::int64_t run_guarded(void* handle, Call&& call) noexcept {
  Stream& stream = *static_cast<Stream*>(handle);
  if (!stream.problem.empty()) return -1;
  try {
    return call(stream);
  } catch (const std::bad_alloc&) {
    stream.problem = "out of memory";
  } catch (const std::exception& error) {
    stream.problem = error.what();
  }
  stream.recorded_spikes.clear();
  return -1;
}

}  // namespace native

extern "C" {

void* jaxsnn_stream_new() noexcept { return new (std::nothrow) native::Stream; }

void jaxsnn_stream_free(void* handle) noexcept { delete static_cast<native::Stream*>(handle); }

const char* jaxsnn_stream_problem(void* handle) noexcept {
  return static_cast<native::Stream*>(handle)->problem.c_str();
}

/// Add a population. parameters: (fields, neurons). flags, one bit each: fires, once, subtract,
/// recorded, at_equality.
std::int64_t jaxsnn_stream_add(void* handle, std::int64_t neurons, const double* parameters,
                               std::int64_t drive, std::int64_t flags, double width,
                               double refractory, std::int64_t group) noexcept {
  return native::run_guarded(handle, [&](native::Stream& stream) {
    stream.add(neurons, parameters,
               {native::Drive(drive), bool(flags & 1), bool(flags & 2), bool(flags & 4),
                bool(flags & 8), bool(flags & 16), width, refractory, group});
    return stream.populations();
  });
}

/// Add a projection. Channel c has the fan-outs from first_fan_out[c] on; fan-out b has the
/// synapses from first_synapse[b] on.
std::int64_t jaxsnn_stream_connect(void* handle, std::int64_t source, std::int64_t target,
                                   std::int64_t channels, const std::int64_t* first_fan_out,
                                   const double* delay, const std::int64_t* first_synapse,
                                   const double* weight, const std::int32_t* neuron,
                                   std::int64_t neurons) noexcept {
  return native::run_guarded(handle, [&](native::Stream& stream) {
    native::Projection projection;
    projection.source = source;
    projection.target = target;
    projection.first_fan_out.assign(first_fan_out, first_fan_out + channels + 1);
    const native::Index fan_outs = first_fan_out[channels], weights = first_synapse[fan_outs];
    projection.weight.assign(weight, weight + weights);
    projection.neuron.assign(neuron, neuron + weights);
    for (native::Index fan_out_index = 0; fan_out_index < fan_outs; ++fan_out_index) {
      const native::Index count = first_synapse[fan_out_index + 1] - first_synapse[fan_out_index];
      bool targets_all = count == neurons;
      for (native::Index n = 0; targets_all && n < count; ++n)
        targets_all = neuron[first_synapse[fan_out_index] + n] == n;
      projection.fan_outs.push_back(
          {delay[fan_out_index], first_synapse[fan_out_index], count, targets_all});
    }
    stream.connect(std::move(projection));
    return native::Index(0);
  });
}

/// Set how many seconds a call works before it returns `kMore`; 0: as little as possible.
std::int64_t jaxsnn_stream_slice(void* handle, double seconds) noexcept {
  return native::run_guarded(handle, [&](native::Stream& stream) {
    stream.slice = std::chrono::duration<double>(seconds);
    return native::Index(0);
  });
}

/// Begin a push of several calls; `jaxsnn_stream_step` begins its own. committed: number of
/// completed pushes; a later push that began was interrupted and is rolled back.
std::int64_t jaxsnn_stream_begin(void* handle, std::int64_t committed) noexcept {
  return native::run_guarded(handle, [&](native::Stream& stream) {
    stream.begin_push(committed);
    return native::Index(0);
  });
}

/// Roll back a push that was interrupted; committed: see `jaxsnn_stream_begin`.
std::int64_t jaxsnn_stream_settle(void* handle, std::int64_t committed) noexcept {
  return native::run_guarded(handle, [&](native::Stream& stream) {
    stream.roll_back(committed);
    return native::Index(0);
  });
}

/// Schedule events of an input. Return how many were accepted; call again with the rest. value:
/// their strengths, or null for 1.
std::int64_t jaxsnn_stream_push(void* handle, std::int64_t input, std::int64_t count,
                                const double* time, const std::int32_t* channel,
                                const double* value) noexcept {
  return native::run_guarded(handle, [&](native::Stream& stream) {
    return stream.push(input, count, time, channel, value);
  });
}

/// Simulate everything before `end`. Return the number of recorded spikes, or `kMore` if there is
/// more to do.
std::int64_t jaxsnn_stream_run(void* handle, double end) noexcept {
  return native::run_guarded(handle, [&](native::Stream& stream) {
    return stream.run(end) ? native::Index(stream.recorded_spikes.size()) : native::kMore;
  });
}

/// Move out the recorded spikes, ordered by population. count: (populations,) number of spikes.
std::int64_t jaxsnn_stream_take(void* handle, double* time, std::int32_t* neuron,
                                std::int64_t* count) noexcept {
  return native::run_guarded(handle, [&](native::Stream& stream) {
    stream.take_spikes(time, neuron, count);
    return native::Index(0);
  });
}

/// Push events, run to `end` (NaN: to the last event, whose time is stored there) and, if there are
/// at most `capacity` spikes, take them. Return -2 and do nothing if the events or the end are
/// invalid; `kMore`: continue with `jaxsnn_stream_run`.
std::int64_t jaxsnn_stream_step(void* handle, std::int64_t capacity, const double* time,
                                const std::int64_t* channel, double* spike_time,
                                std::int32_t* spike_neuron, std::int64_t* spike_count, double* end,
                                std::int64_t input, std::int64_t count, std::int64_t channels,
                                std::int64_t committed) noexcept {
  return native::run_guarded(handle, [&](native::Stream& stream) {
    constexpr double kInf = std::numeric_limits<double>::infinity();
    stream.roll_back(committed);
    const double now = stream.time;
    double last_time = now;
    for (native::Index n = 0; n < count; ++n) {
      const bool is_valid =
          time[n] >= now && time[n] < kInf && channel[n] >= 0 && channel[n] < channels;
      if (!is_valid) return native::Index(-2);
      last_time = std::max(last_time, time[n]);
    }
    if (std::isnan(*end)) *end = last_time;
    if (!(*end >= now && *end < kInf)) return native::Index(-2);
    stream.begin_push(committed);
    stream.push(input, count, time, channel, nullptr);
    if (!stream.run(*end)) return native::kMore;
    const native::Index spikes = stream.recorded_spikes.size();
    if (spikes > 0 && spikes <= capacity) stream.take_spikes(spike_time, spike_neuron, spike_count);
    return spikes;
  });
}

/// Return the time in seconds to which a stream was run, even after an error.
double jaxsnn_stream_time(void* handle) noexcept {
  return static_cast<native::Stream*>(handle)->time;
}

/// Save the state to arrays; if `numbers` is null, only their sizes.
///
/// sizes: (4,) numbers, neurons, scheduled events, and the round. numbers: the time, the time of
/// the round, then those of `StreamState`. flags: (2 neurons,) open boxes, then whether in a
/// refractory period. due_numbers: (events, 2) time and value. due_indices: (events, 7) group,
/// round, target, projection, fan-out, neuron, and whether it closes a box.
std::int64_t jaxsnn_stream_save(void* handle, std::int64_t* sizes, double* numbers,
                                std::int64_t* flags, double* due_numbers,
                                std::int64_t* due_indices) noexcept {
  return native::run_guarded(handle, [&](native::Stream& stream) {
    const native::StreamState state = stream.save();
    sizes[0] = native::Index(state.numbers.size()) + 2;
    sizes[1] = native::Index(state.open_boxes.size());
    sizes[2] = native::Index(state.queue.size());
    sizes[3] = state.round;
    if (!numbers) return native::Index(0);
    *numbers++ = state.time;
    *numbers++ = state.round_time;
    std::copy(state.numbers.begin(), state.numbers.end(), numbers);
    for (std::int32_t count : state.open_boxes) *flags++ = count;
    for (std::uint8_t flag : state.refractory) *flags++ = flag;
    for (const native::ScheduledEvent& event : state.queue) {
      for (double number : {event.time, event.value}) *due_numbers++ = number;
      for (native::Index index : {event.group, event.round, event.target, event.projection,
                                  event.fan_out, event.neuron, native::Index(event.closes)})
        *due_indices++ = index;
    }
    return native::Index(0);
  });
}

/// Restore a saved state. Return -2 and do nothing if the arrays are not a state of this stream.
std::int64_t jaxsnn_stream_restore(void* handle, const std::int64_t* sizes, const double* numbers,
                                   const std::int64_t* flags, const double* due_numbers,
                                   const std::int64_t* due_indices) noexcept {
  return native::run_guarded(handle, [&](native::Stream& stream) {
    constexpr std::int64_t kMaxOpenBoxes = 1 << 30;  // per neuron
    native::StreamState state;
    state.time = numbers[0];
    state.round_time = numbers[1];
    state.round = sizes[3];
    state.numbers.assign(numbers + 2, numbers + sizes[0]);
    for (native::Index n = 0; n < 2 * sizes[1]; ++n) {
      const bool is_box_count = n < sizes[1];
      if (flags[n] < 0 || flags[n] > (is_box_count ? kMaxOpenBoxes : 1)) return native::Index(-2);
      if (is_box_count)
        state.open_boxes.push_back(std::int32_t(flags[n]));
      else
        state.refractory.push_back(std::uint8_t(flags[n]));
    }
    for (native::Index n = 0; n < sizes[2]; ++n, due_numbers += 2, due_indices += 7)
      state.queue.push_back({due_numbers[0], due_indices[0], due_indices[1], due_indices[2],
                             due_indices[3], due_indices[4], due_indices[5], due_numbers[1],
                             due_indices[6] != 0});
    if (!stream.fits(state)) return native::Index(-2);
    stream.restore(state);
    return native::Index(0);
  });
}

/// Compute v of a population's neurons at the time to which the stream was run.
std::int64_t jaxsnn_stream_voltage(void* handle, std::int64_t population, double time,
                                   double* potentials) noexcept {
  return native::run_guarded(handle, [&](native::Stream& stream) {
    stream.voltage(population, time, potentials);
    return native::Index(0);
  });
}

/// Return the number of scheduled events.
std::int64_t jaxsnn_stream_waiting(void* handle) noexcept {
  return native::run_guarded(handle, [](native::Stream& stream) { return stream.queued_events(); });
}
}
