// Events that each reach some positions of a population, as a convolution's do: lists of what arrives
// at each position, one behind the other, filled event by event in the order of time.

#pragma once

#include "layer.h"

namespace native {

/// Events in the order of time, (samples, events), and where each channel's go, (channels, taps).
template <class T>
struct Taps {
  Index samples, channels, taps;
  const T* time;
  const std::int32_t* channel;
  const std::int32_t* place;  // position; any other number: nowhere
  const std::int32_t* row;
};

template <class T>
class Lists {
 public:
  Lists(const Given<T>& given, const Taps<T>& taps, Index threads)
      : given_(given), taps_(taps), begin_(given.batch + 1, Index(0)) {
    // how many there are at each position, ...
    Pool::shared().run(taps.samples, threads, [&](Index sample) {
      Index* count = begin_.data() + 1 + sample * given.positions;
      each(sample, [&](Index, Index place, Index) { ++count[place]; });
    });
    for (Index b = 0; b < given.batch; ++b) begin_[b + 1] += begin_[b];
    const Index entries = begin_[given.batch];
    if (entries >= std::numeric_limits<std::int32_t>::max()) throw std::bad_alloc();
    time_ = Array<T>(entries);
    row_ = Array<std::int32_t>(entries);
    slot_ = Array<std::int32_t>(entries);
    // ... and what they are
    Pool::shared().run(taps.samples, threads, [&](Index sample) {
      const Index* first = begin_.data() + sample * given.positions;
      std::vector<Index> next(first, first + given.positions);
      each(sample, [&](Index event, Index place, Index row) {
        const Index entry = next[place]++;
        time_[entry] = taps_.time[sample * given_.arrivals + event];
        row_[entry] = std::int32_t(row);
        slot_[entry] = std::int32_t(event);
      });
    });
  }

  Ordered<T> ordered() const {
    return {time_.data(), row_.data(), slot_.data(), nullptr, given_.arrivals, begin_.data()};
  }

 private:
  template <class Call>
  void each(Index sample, Call&& call) const {
    const T* times = taps_.time + sample * given_.arrivals;
    const std::int32_t* channels = taps_.channel + sample * given_.arrivals;
    for (Index event = 0; event < given_.arrivals; ++event) {
      if (!(times[event] < given_.t_end)) continue;
      const Index channel = channels[event];
      if (channel < 0 || channel >= taps_.channels) continue;
      for (Index n = channel * taps_.taps; n < (channel + 1) * taps_.taps; ++n) {
        const Index place = taps_.place[n];
        if (place >= 0 && place < given_.positions) call(event, place, Index(taps_.row[n]));
      }
    }
  }

  const Given<T>& given_;
  const Taps<T>& taps_;
  Array<Index> begin_;
  Array<T> time_;
  Array<std::int32_t> row_, slot_;
};

}  // namespace native
