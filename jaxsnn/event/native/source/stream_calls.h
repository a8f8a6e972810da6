// Plain functions for streams: a handle, numbers and arrays, whose sizes the caller vouches for.
// Each returns a number, below 0 where `jaxsnn_stream_problem` says what went wrong.

#pragma once

#include "stream.h"

namespace native {

/// What calls return that have more to do: Python looks for signals and calls again.
constexpr Index kMore = -3;

/// Runs a call on a stream; what it throws becomes its problem, and ends it: no call does anything
/// after that.
template <class Call>
std::int64_t guarded_stream(void* handle, Call&& call) noexcept {
  Stream& stream = *static_cast<Stream*>(handle);
  if (!stream.problem.empty()) return -1;
  try {
    return call(stream);
  } catch (const std::bad_alloc&) {
    stream.problem = "out of memory";
  } catch (const std::exception& error) {
    stream.problem = error.what();
  }
  stream.fired.clear();
  return -1;
}

}  // namespace native

extern "C" {

void* jaxsnn_stream_new() noexcept { return new (std::nothrow) native::Stream; }

void jaxsnn_stream_free(void* handle) noexcept { delete static_cast<native::Stream*>(handle); }

const char* jaxsnn_stream_problem(void* handle) noexcept {
  return static_cast<native::Stream*>(handle)->problem.c_str();
}

/// lanes: (fields, neurons). flags: fires, once, subtract, recorded, at_equality, one bit each.
std::int64_t jaxsnn_stream_add(void* handle, std::int64_t neurons, const double* lanes,
                               std::int64_t drive, std::int64_t flags, double width,
                               double refractory, std::int64_t group) noexcept {
  return native::guarded_stream(handle, [&](native::Stream& stream) {
    stream.add(neurons, lanes,
               {native::Drive(drive), bool(flags & 1), bool(flags & 2), bool(flags & 4),
                bool(flags & 8), bool(flags & 16), width, refractory, group});
    return stream.populations();
  });
}

/// Bundles of channel c: from of_channel[c] on; weights and neurons of bundle b: from first[b] on.
std::int64_t jaxsnn_stream_connect(void* handle, std::int64_t source, std::int64_t target,
                                   std::int64_t channels, const std::int64_t* of_channel,
                                   const double* delay, const std::int64_t* first,
                                   const double* weight, const std::int32_t* neuron,
                                   std::int64_t neurons) noexcept {
  return native::guarded_stream(handle, [&](native::Stream& stream) {
    native::Wiring wiring;
    wiring.source = source;
    wiring.target = target;
    wiring.of_channel.assign(of_channel, of_channel + channels + 1);
    const native::Index bundles = of_channel[channels], weights = first[bundles];
    wiring.weight.assign(weight, weight + weights);
    wiring.neuron.assign(neuron, neuron + weights);
    for (native::Index b = 0; b < bundles; ++b) {
      const native::Index count = first[b + 1] - first[b];
      bool every = count == neurons;
      for (native::Index n = 0; every && n < count; ++n) every = neuron[first[b] + n] == n;
      wiring.bundles.push_back({delay[b], first[b], count, every});
    }
    stream.connect(std::move(wiring));
    return native::Index(0);
  });
}

/// How many seconds a call works before it returns `kMore`; 0: as little as it can.
std::int64_t jaxsnn_stream_slice(void* handle, double seconds) noexcept {
  return native::guarded_stream(handle, [&](native::Stream& stream) {
    stream.slice = std::chrono::duration<double>(seconds);
    return native::Index(0);
  });
}

/// Begins a push of several calls; `jaxsnn_stream_step` does so itself. committed: how many pushes
/// have ended; one more that has begun was interrupted, and is rolled back.
std::int64_t jaxsnn_stream_begin(void* handle, std::int64_t committed) noexcept {
  return native::guarded_stream(handle, [&](native::Stream& stream) {
    stream.begin(committed);
    return native::Index(0);
  });
}

/// Rolls back a push that was interrupted; committed: as of `jaxsnn_stream_begin`.
std::int64_t jaxsnn_stream_settle(void* handle, std::int64_t committed) noexcept {
  return native::guarded_stream(handle, [&](native::Stream& stream) {
    stream.settle(committed);
    return native::Index(0);
  });
}

/// Events of an input, and how many of them were taken: with the rest it is called again. value: their
/// sizes, or null for 1.
std::int64_t jaxsnn_stream_push(void* handle, std::int64_t input, std::int64_t count,
                                const double* time, const std::int32_t* channel,
                                const double* value) noexcept {
  return native::guarded_stream(handle, [&](native::Stream& stream) {
    return stream.push(input, count, time, channel, value);
  });
}

/// Simulates everything before `end`: how many spikes of recorded populations there are to take, or
/// `kMore`: there is more to do, and it is called again.
std::int64_t jaxsnn_stream_run(void* handle, double end) noexcept {
  return native::guarded_stream(handle, [&](native::Stream& stream) {
    return stream.run(end) ? native::Index(stream.fired.size()) : native::kMore;
  });
}

/// Hands over the spikes that `jaxsnn_stream_run` counted: those of one population after those of
/// another, and (populations,) how many each has.
std::int64_t jaxsnn_stream_take(void* handle, double* time, std::int32_t* neuron,
                                std::int64_t* count) noexcept {
  return native::guarded_stream(handle, [&](native::Stream& stream) {
    stream.take(time, neuron, count);
    return native::Index(0);
  });
}

/// A push, a run to `end` (NaN: to the last event, whose time it becomes) and, of at most `room` spikes,
/// a take, in one. -2, and nothing has happened, where something is wrong with the events or the end;
/// `kMore`: as of `jaxsnn_stream_run`, which goes on.
std::int64_t jaxsnn_stream_step(void* handle, std::int64_t room, const double* time,
                                const std::int64_t* channel, double* spike_time,
                                std::int32_t* spike_neuron, std::int64_t* spike_count,
                                double* end, std::int64_t input, std::int64_t count,
                                std::int64_t channels, std::int64_t committed) noexcept {
  return native::guarded_stream(handle, [&](native::Stream& stream) {
    constexpr double kInf = std::numeric_limits<double>::infinity();
    stream.settle(committed);
    const double now = stream.time;
    double last = now;
    for (native::Index n = 0; n < count; ++n) {
      const bool fits = time[n] >= now && time[n] < kInf && channel[n] >= 0 && channel[n] < channels;
      if (!fits) return native::Index(-2);
      last = std::max(last, time[n]);
    }
    if (std::isnan(*end)) *end = last;
    if (!(*end >= now && *end < kInf)) return native::Index(-2);
    stream.begin(committed);
    stream.push(input, count, time, channel, nullptr);
    if (!stream.run(*end)) return native::kMore;
    const native::Index spikes = stream.fired.size();
    if (spikes > 0 && spikes <= room) stream.take(spike_time, spike_neuron, spike_count);
    return spikes;
  });
}

/// Seconds to which it was run, also where it has ended.
double jaxsnn_stream_time(void* handle) noexcept {
  return static_cast<native::Stream*>(handle)->time;
}

/// The state as arrays; with null for `numbers` their sizes alone.
///
/// sizes: (4,), how many numbers, neurons and entries of the queue there are, and the round.
/// numbers: the time, the time of the round, then those of `StreamState`. flags: (2 neurons,), open
/// boxes, then whether held. due_numbers: (due, 2), time and value. due_indices: (due, 7), group, round,
/// target, wiring, bundle, neuron and whether it closes a box.
std::int64_t jaxsnn_stream_save(void* handle, std::int64_t* sizes, double* numbers,
                                std::int64_t* flags, double* due_numbers,
                                std::int64_t* due_indices) noexcept {
  return native::guarded_stream(handle, [&](native::Stream& stream) {
    const native::StreamState state = stream.save();
    sizes[0] = native::Index(state.numbers.size()) + 2;
    sizes[1] = native::Index(state.open.size());
    sizes[2] = native::Index(state.queue.size());
    sizes[3] = state.round;
    if (!numbers) return native::Index(0);
    *numbers++ = state.time;
    *numbers++ = state.round_time;
    std::copy(state.numbers.begin(), state.numbers.end(), numbers);
    for (std::int32_t count : state.open) *flags++ = count;
    for (std::uint8_t flag : state.held) *flags++ = flag;
    for (const native::Due& due : state.queue) {
      for (double number : {due.time, due.value}) *due_numbers++ = number;
      for (native::Index index : {due.group, due.round, due.target, due.wiring, due.bundle,
                                  due.neuron, native::Index(due.closes)})
        *due_indices++ = index;
    }
    return native::Index(0);
  });
}

/// The inverse. -2, and nothing has happened, where the arrays are not a state of this stream.
std::int64_t jaxsnn_stream_restore(void* handle, const std::int64_t* sizes, const double* numbers,
                                   const std::int64_t* flags, const double* due_numbers,
                                   const std::int64_t* due_indices) noexcept {
  return native::guarded_stream(handle, [&](native::Stream& stream) {
    constexpr std::int64_t kMost = 1 << 30;  // boxes that are open
    native::StreamState state;
    state.time = numbers[0];
    state.round_time = numbers[1];
    state.round = sizes[3];
    state.numbers.assign(numbers + 2, numbers + sizes[0]);
    for (native::Index n = 0; n < 2 * sizes[1]; ++n) {
      const bool opens = n < sizes[1];
      if (flags[n] < 0 || flags[n] > (opens ? kMost : 1)) return native::Index(-2);
      if (opens)
        state.open.push_back(std::int32_t(flags[n]));
      else
        state.held.push_back(std::uint8_t(flags[n]));
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

/// v of a population's neurons at the time that it was run to.
std::int64_t jaxsnn_stream_voltage(void* handle, std::int64_t population, double time,
                                   double* out) noexcept {
  return native::guarded_stream(handle, [&](native::Stream& stream) {
    stream.voltage(population, time, out);
    return native::Index(0);
  });
}

/// Events that have not acted yet.
std::int64_t jaxsnn_stream_waiting(void* handle) noexcept {
  return native::guarded_stream(handle, [](native::Stream& stream) { return stream.waiting(); });
}
}
