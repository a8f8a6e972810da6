// Plain functions for streams: a handle, numbers and arrays, whose sizes the caller vouches for.
// Each returns a number, below 0 where `jaxsnn_stream_problem` says what went wrong.

#pragma once

#include "stream.h"

namespace native {

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

/// Events of an input. value: their sizes, or null for 1.
std::int64_t jaxsnn_stream_push(void* handle, std::int64_t input, std::int64_t count,
                                const double* time, const std::int32_t* channel,
                                const double* value) noexcept {
  return native::guarded_stream(handle, [&](native::Stream& stream) {
    stream.push(input, count, time, channel, value);
    return native::Index(0);
  });
}

/// Simulates everything before `end`: how many spikes of recorded populations there are to take.
std::int64_t jaxsnn_stream_run(void* handle, double end) noexcept {
  return native::guarded_stream(handle, [&](native::Stream& stream) {
    stream.run(end);
    return native::Index(stream.fired.size());
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

/// A push, a run to `end` (NaN: to the last event, whose time it becomes) and, of at most `room` spikes, a take, in one.
/// -2, and nothing has happened, where something is wrong with the events or the end.
std::int64_t jaxsnn_stream_step(void* handle, std::int64_t room, const double* time,
                                const std::int64_t* channel, double* spike_time,
                                std::int32_t* spike_neuron, std::int64_t* spike_count,
                                double* end, std::int64_t input, std::int64_t count,
                                std::int64_t channels, double now) noexcept {
  return native::guarded_stream(handle, [&](native::Stream& stream) {
    constexpr double kInf = std::numeric_limits<double>::infinity();
    double last = now;
    for (native::Index n = 0; n < count; ++n) {
      const bool fits = time[n] >= now && time[n] < kInf && channel[n] >= 0 && channel[n] < channels;
      if (!fits) return native::Index(-2);
      last = std::max(last, time[n]);
    }
    if (std::isnan(*end)) *end = last;
    if (!(*end >= now && *end < kInf)) return native::Index(-2);
    stream.push(input, count, time, channel, nullptr);
    stream.run(*end);
    const native::Index spikes = stream.fired.size();
    if (spikes > 0 && spikes <= room) stream.take(spike_time, spike_neuron, spike_count);
    return spikes;
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
