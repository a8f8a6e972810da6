// Events that each reach some positions of a population, as a convolution's do: lists of what arrives
// at each position, one behind the other, filled event by event in the order of time; and the
// population behind them, sample by sample.

#pragma once

#include "layer_backward.h"
#include "layer_forward.h"

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

/// Where each channel's events go, without such places as there are none of.
template <class T>
class Targets {
 public:
  struct Target {
    std::int32_t place, row;
  };

  Targets(const Taps<T>& taps, Index positions) : first_(taps.channels + 1, 0) {
    targets_.reserve(taps.channels * taps.taps);
    for (Index channel = 0; channel < taps.channels; ++channel) {
      for (Index n = channel * taps.taps; n < (channel + 1) * taps.taps; ++n)
        if (taps.place[n] >= 0 && taps.place[n] < positions)
          targets_.push_back({taps.place[n], taps.row[n]});
      first_[channel + 1] = targets_.size();
    }
  }

  const Target* begin(Index channel) const { return targets_.data() + first_[channel]; }
  const Target* end(Index channel) const { return targets_.data() + first_[channel + 1]; }

 private:
  std::vector<Target> targets_;
  std::vector<Index> first_;
};

template <class T>
class Lists {
 public:
  /// `of_slots`: whether slots are wanted, as by the gradient by times.
  Lists(const Population<T>& population, const Taps<T>& taps, const Targets<T>& targets, Index threads,
        bool of_slots, Scratch<T>& room)
      : population_(population), taps_(taps), targets_(targets), begin_(population.batch + 1, Index(0)) {
    // how many there are at each position, ...
    ThreadPool::shared().run(taps.samples, threads, [&](Index sample) { count(sample); });
    for (Index b = 0; b < population.batch; ++b) begin_[b + 1] += begin_[b];
    const Index entries = begin_[population.batch];
    if (entries >= std::numeric_limits<std::int32_t>::max()) throw std::bad_alloc();
    time_ = ensure_capacity(room.time, entries);
    row_ = ensure_capacity(room.row, entries);
    slot_ = ensure_capacity(room.slot, of_slots ? entries : 0);
    // ... and what they are
    ThreadPool::shared().run(taps.samples, threads, [&](Index sample) {
      of_slots ? fill<true>(sample) : fill<false>(sample);
    });
  }

  SortedArrivals<T> sorted() const {
    return {time_, row_, slot_, nullptr, population_.arrivals, begin_.data()};
  }

 private:
  /// Calls with each event of a sample, its time and its channel.
  template <class Call>
  void each(Index sample, Call&& call) const {
    const T* const times = taps_.time + sample * population_.arrivals;
    const std::int32_t* const channels = taps_.channel + sample * population_.arrivals;
    for (Index event = 0; event < population_.arrivals; ++event) {
      const Index channel = channels[event];
      if (times[event] < population_.t_end && channel >= 0 && channel < taps_.channels)
        call(event, times[event], channel);
    }
  }

  void count(Index sample) {
    std::vector<Index> events(taps_.channels, 0);
    each(sample, [&](Index, T, Index channel) { ++events[channel]; });
    Index* const count = begin_.data() + 1 + sample * population_.positions;
    for (Index channel = 0; channel < taps_.channels; ++channel)
      for (auto* target = targets_.begin(channel); target < targets_.end(channel); ++target)
        count[target->place] += events[channel];
  }

  template <bool kOfSlots>
  void fill(Index sample) {
    const Index* const first = begin_.data() + sample * population_.positions;
    std::vector<Index> next_entry(first, first + population_.positions);
    // these stay where they are, whatever is written
    Index* const next = next_entry.data();
    T* const of_time = time_;
    std::int32_t *const of_row = row_, *const of_slot = slot_;
    each(sample, [=, &targets = targets_](Index event, T time, Index channel) {
      const auto* const end = targets.end(channel);
      for (const auto* target = targets.begin(channel); target < end; ++target) {
        const Index entry = next[target->place]++;
        of_time[entry] = time;
        of_row[entry] = target->row;
        if constexpr (kOfSlots) of_slot[entry] = std::int32_t(event);
      }
    });
  }

  const Population<T>& population_;
  const Taps<T>& taps_;
  const Targets<T>& targets_;
  Array<Index> begin_;
  T* time_;
  std::int32_t *row_, *slot_;
};

// ---- sample by sample

/// From so many samples on each is done by one thread, from its lists to its spikes: they stay in
/// its cache, and take the memory of one sample. The same bits for every number of threads.
constexpr Index kManySamples = 8;

/// dL/dt of spikes by their slots, and of a train, which takes some of them: dL/dt there is added.
template <class T>
struct Drives {
  const T* of_slots;          // (samples, slots); null: all are 0
  const T* of_train;          // (samples, events)
  const std::int32_t* place;  // (samples, events) in the slots of the sample; elsewhere: nowhere
  Index slots, events;        // of a sample

  void write(Index sample, T* all) const {
    of_slots ? (void)std::copy_n(of_slots + sample * slots, slots, all)
             : (void)std::fill_n(all, slots, T(0));
    for (Index n = sample * events; n < (sample + 1) * events; ++n)
      if (place[n] >= 0 && place[n] < slots) all[place[n]] += of_train[n];
  }
};

/// One sample of a batch.
template <class T>
struct OfSample {
  Population<T> population;
  Taps<T> taps;

  OfSample(const Population<T>& all, const Taps<T>& of_all, Index sample) : population(all), taps(of_all) {
    population.batch = all.positions;
    taps.samples = 1;
    taps.time += sample * all.arrivals;
    taps.channel += sample * all.arrivals;
  }
};

/// As `layer_forward`, of the lists that events make.
template <class T>
void scatter_forward(const Population<T>& population, const Options& options, const Taps<T>& taps,
                     const Spikes<T>& spikes) {
  const Targets<T> targets(taps, population.positions);
  if (taps.samples < kManySamples) {
    Scratch<T> room;
    const Lists<T> lists(population, taps, targets, options.threads, false, room);
    return layer_forward(population, options, lists.sorted(), spikes);
  }
  Options alone = options;
  alone.threads = 1;
  const Index neurons = population.positions * population.neurons, slots = options.max_spikes;
  ThreadPool::shared().run(taps.samples, options.threads, [&](Index sample) {
    const OfSample<T> of(population, taps, sample);
    typename Scratch<T>::Lease room;
    const Lists<T> lists(of.population, of.taps, targets, 1, false, *room);
    const Index first = sample * neurons, slot = first * slots;
    const Spikes<T> own{spikes.time + slot, spikes.slope + slot,
                        spikes.slope_after + (options.spike_sets_v() ? slot : 0), spikes.count + first,
                        spikes.cause + (options.jumps ? slot : 0)};
    layer_forward(of.population, alone, lists.sorted(), own, &*room);
  });
}

/// As `layer_backward`, of the lists that events make.
template <class T>
void scatter_backward(const Population<T>& population, const Options& options, const Taps<T>& taps,
                      const ForwardSpikes<T>& found, const Drives<T>& drives,
                      const Gradients<T>& gradients) {
  const Targets<T> targets(taps, population.positions);
  const bool of_time = gradients.time;
  if (taps.samples < kManySamples) {
    Scratch<T> room;
    Array<T> every(taps.samples * drives.slots);
    ThreadPool::shared().run(taps.samples, options.threads, [&](Index sample) {
      drives.write(sample, every.data() + sample * drives.slots);
    });
    ForwardSpikes<T> driven = found;
    driven.cotangent = every.data();
    const Lists<T> lists(population, taps, targets, options.threads, of_time, room);
    return layer_backward(population, options, lists.sorted(), driven, gradients, taps.samples);
  }
  Options alone = options;
  alone.threads = 1;
  const Index neurons = population.positions * population.neurons, slots = options.max_spikes;
  const Index weights = population.rows * population.neurons;
  const Index fields = gradients.parameters ? gradients.fields * neurons : 0;
  const WorkUnits units{1, std::min(kPartialGradients, taps.samples), taps.samples};
  Array<T> by_weight(units.size() * weights, T(0));
  Array<double> by_lanes(units.size() * fields, 0.0);
  ThreadPool::shared().run(units.size(), options.threads, [&](Index part) {
    Array<T> of_weight(weights), of_lanes(fields);
    for (Index sample = units.begin(part); sample < units.begin(part + 1); ++sample) {
      typename Scratch<T>::Lease room;
      const OfSample<T> of(population, taps, sample);
      const Lists<T> lists(of.population, of.taps, targets, 1, of_time, *room);
      const Index slot = sample * neurons * slots;
      T* const drive = ensure_capacity((*room).slot_cotangents, drives.slots);
      drives.write(sample, drive);
      const ForwardSpikes<T> own{found.time + slot, found.slope + slot,
                         found.slope_after + (options.spike_sets_v() ? slot : 0),
                         drive, found.cause + (options.jumps ? slot : 0)};
      const Gradients<T> mine{of_weight.data(), fields ? of_lanes.data() : nullptr,
                              gradients.fields,
                              of_time ? gradients.time + sample * population.arrivals : nullptr};
      layer_backward(of.population, alone, lists.sorted(), own, mine, 1, &*room);
      for (Index n = 0; n < weights; ++n) by_weight[part * weights + n] += of_weight[n];
      for (Index n = 0; n < fields; ++n) by_lanes[part * fields + n] += of_lanes[n];
    }
  });
  std::fill_n(gradients.weight, weights, T(0));
  for (Index part = 0; part < units.size(); ++part)
    for (Index n = 0; n < weights; ++n) gradients.weight[n] += by_weight[part * weights + n];
  for (Index n = 0; n < fields; ++n) {
    double sum = 0;
    for (Index part = 0; part < units.size(); ++part) sum += by_lanes[part * fields + n];
    gradients.parameters[n] = T(sum);
  }
}

}  // namespace native
