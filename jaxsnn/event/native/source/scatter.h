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
  /// `of_slots`: whether slots are wanted, as by the gradient by times.
  Lists(const Given<T>& given, const Taps<T>& taps, Index threads, bool of_slots)
      : given_(given), taps_(taps), begin_(given.batch + 1, Index(0)) {
    find_targets();
    // how many there are at each position, ...
    Pool::shared().run(taps.samples, threads, [&](Index sample) { count(sample); });
    for (Index b = 0; b < given.batch; ++b) begin_[b + 1] += begin_[b];
    const Index entries = begin_[given.batch];
    if (entries >= std::numeric_limits<std::int32_t>::max()) throw std::bad_alloc();
    time_ = Array<T>(entries);
    row_ = Array<std::int32_t>(entries);
    slot_ = Array<std::int32_t>(of_slots ? entries : 0);
    // ... and what they are
    Pool::shared().run(taps.samples, threads, [&](Index sample) {
      of_slots ? fill<true>(sample) : fill<false>(sample);
    });
  }

  Ordered<T> ordered() const {
    return {time_.data(), row_.data(), slot_.data(), nullptr, given_.arrivals, begin_.data()};
  }

 private:
  struct Target {
    std::int32_t place, row;
  };

  /// Where each channel's events go, without such places as there are none of.
  void find_targets() {
    first_target_.assign(taps_.channels + 1, 0);
    targets_.reserve(taps_.channels * taps_.taps);
    for (Index channel = 0; channel < taps_.channels; ++channel) {
      for (Index n = channel * taps_.taps; n < (channel + 1) * taps_.taps; ++n)
        if (taps_.place[n] >= 0 && taps_.place[n] < given_.positions)
          targets_.push_back({taps_.place[n], taps_.row[n]});
      first_target_[channel + 1] = targets_.size();
    }
  }

  /// Calls with each event of a sample, its time and its channel.
  template <class Call>
  void each(Index sample, Call&& call) const {
    const T* const times = taps_.time + sample * given_.arrivals;
    const std::int32_t* const channels = taps_.channel + sample * given_.arrivals;
    for (Index event = 0; event < given_.arrivals; ++event) {
      const Index channel = channels[event];
      if (times[event] < given_.t_end && channel >= 0 && channel < taps_.channels)
        call(event, times[event], channel);
    }
  }

  void count(Index sample) {
    std::vector<Index> events(taps_.channels, 0);
    each(sample, [&](Index, T, Index channel) { ++events[channel]; });
    Index* const count = begin_.data() + 1 + sample * given_.positions;
    for (Index channel = 0; channel < taps_.channels; ++channel)
      for (Index n = first_target_[channel]; n < first_target_[channel + 1]; ++n)
        count[targets_[n].place] += events[channel];
  }

  template <bool kOfSlots>
  void fill(Index sample) {
    const Index* const first = begin_.data() + sample * given_.positions;
    std::vector<Index> next_entry(first, first + given_.positions);
    // these stay where they are, whatever is written
    Index* const next = next_entry.data();
    T* const of_time = time_.data();
    std::int32_t *const of_row = row_.data(), *const of_slot = slot_.data();
    const Target* const targets = targets_.data();
    const Index* const first_target = first_target_.data();
    each(sample, [=](Index event, T time, Index channel) {
      const Target* const end = targets + first_target[channel + 1];
      for (const Target* target = targets + first_target[channel]; target < end; ++target) {
        const Index entry = next[target->place]++;
        of_time[entry] = time;
        of_row[entry] = target->row;
        if constexpr (kOfSlots) of_slot[entry] = std::int32_t(event);
      }
    });
  }

  const Given<T>& given_;
  const Taps<T>& taps_;
  std::vector<Target> targets_;
  std::vector<Index> first_target_;
  Array<Index> begin_;
  Array<T> time_;
  Array<std::int32_t> row_, slot_;
};

}  // namespace native
