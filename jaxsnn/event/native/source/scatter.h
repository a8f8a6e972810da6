// Populations in which an event reaches some positions only, as in a convolution.
//
// Each event belongs to a channel. A table lists the positions that a channel reaches, each with a
// row of the weights (`TapTable`). From events and table, each position gets its own list of
// arrivals, sorted by time; the lists are stored back to back:
//
//     events  (samples, events)   time, channel
//     taps    (channels, taps)    position, row
//     lists   | position 0 | position 1 | ... | of sample 0, then of sample 1, ...
//
// The lists are passed to the kernels of layer_forward.h and layer_backward.h.

#pragma once

#include "layer_backward.h"
#include "layer_forward.h"

namespace native {

/// Events sorted by time, (samples, events), and the targets of each channel, (channels, taps).
template <class T>
struct TapTable {
  Index samples, channels, taps;
  const T* time;
  const std::int32_t* channel;
  const std::int32_t* position;  // invalid numbers: unused taps
  const std::int32_t* row;
};

/// Targets of each channel, without unused taps.
template <class T>
class ChannelTargets {
 public:
  struct Target {
    std::int32_t position, row;
  };

  ChannelTargets(const TapTable<T>& taps, Index positions) : first_(taps.channels + 1, 0) {
    targets_.reserve(taps.channels * taps.taps);
    for (Index channel = 0; channel < taps.channels; ++channel) {
      for (Index n = channel * taps.taps; n < (channel + 1) * taps.taps; ++n)
        if (taps.position[n] >= 0 && taps.position[n] < positions)
          targets_.push_back({taps.position[n], taps.row[n]});
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
class ArrivalLists {
 public:
  /// `with_slots`: whether to store the arrivals' slots, as the gradient with respect to times
  /// needs them.
  ArrivalLists(const Population<T>& population, const TapTable<T>& taps,
               const ChannelTargets<T>& targets, Index threads, bool with_slots,
               Scratch<T>& scratch)
      : population_(population),
        taps_(taps),
        targets_(targets),
        begin_(population.batch + 1, Index(0)) {
    // First count the arrivals of each position, ...
    ThreadPool::shared().run(taps.samples, threads, [&](Index sample) { count(sample); });
    for (Index list = 0; list < population.batch; ++list) begin_[list + 1] += begin_[list];
    const Index entries = begin_[population.batch];
    if (entries >= std::numeric_limits<std::int32_t>::max()) throw std::bad_alloc();
    time_ = ensure_capacity(scratch.time, entries);
    row_ = ensure_capacity(scratch.row, entries);
    slot_ = ensure_capacity(scratch.slot, with_slots ? entries : 0);
    // ... then write the arrivals.
    ThreadPool::shared().run(taps.samples, threads, [&](Index sample) {
      with_slots ? fill<true>(sample) : fill<false>(sample);
    });
  }

  SortedArrivals<T> sorted() const {
    return {time_, row_, slot_, nullptr, population_.arrivals, begin_.data()};
  }

 private:
  /// Call with each valid event of a sample, its time and its channel.
  template <class Call>
  void for_each_event(Index sample, Call&& call) const {
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
    for_each_event(sample, [&](Index, T, Index channel) { ++events[channel]; });
    Index* const count = begin_.data() + 1 + sample * population_.positions;
    for (Index channel = 0; channel < taps_.channels; ++channel)
      for (auto* target = targets_.begin(channel); target < targets_.end(channel); ++target)
        count[target->position] += events[channel];
  }

  template <bool kWithSlots>
  void fill(Index sample) {
    const Index* const first = begin_.data() + sample * population_.positions;
    std::vector<Index> next_entries(first, first + population_.positions);
    // Local copies: the compiler must assume that stores change members, and would reload them.
    Index* const next_entry = next_entries.data();
    T* const times = time_;
    std::int32_t *const rows = row_, *const slots = slot_;
    for_each_event(sample, [=, &targets = targets_](Index event, T time, Index channel) {
      const auto* const end = targets.end(channel);
      for (const auto* target = targets.begin(channel); target < end; ++target) {
        const Index entry = next_entry[target->position]++;
        times[entry] = time;
        rows[entry] = target->row;
        if constexpr (kWithSlots) slots[entry] = std::int32_t(event);
      }
    });
  }

  const Population<T>& population_;
  const TapTable<T>& taps_;
  const ChannelTargets<T>& targets_;
  Array<Index> begin_;
  T* time_;
  std::int32_t *row_, *slot_;
};

// ---- forward and backward pass

/// From this number of samples on, each sample is processed by one thread from its lists to its
/// spikes. It then stays in that thread's cache and needs the memory of one sample only. Results
/// are the same for every number of threads.
constexpr Index kMinSamplesForSerial = 8;

/// Memory for all spike slots of some samples.
template <class T>
Spikes<T> all_slots(Scratch<T>& scratch, Index slots, const Options& options,
                    std::int32_t* count) {
  return {ensure_capacity(scratch.spike_time, slots), ensure_capacity(scratch.spike_slope, slots),
          ensure_capacity(scratch.spike_slope_after, options.spike_sets_v() ? slots : 0), count,
          ensure_capacity(scratch.spike_cause, options.jumps ? slots : 0)};
}

/// The earliest spikes of each sample in order, without the slots in which no spike occurred:
/// arrays (samples, capacity). A slot is an index on the axes (neurons, max_spikes).
template <class T>
struct EarliestSpikes {
  Spikes<T> spikes;  // without `count`
  std::int32_t* slot;
  Index capacity;

  /// Copy the earliest spikes of a sample from the slots of all its spikes.
  void store(const Spikes<T>& all, Index slots, const Options& options, Index sample) const {
    if (!capacity) return;
    const Index first = sample * capacity;
    find_earliest(all.time, slots, capacity, slot + first);
    for (Index n = first; n < first + capacity; ++n) {
      spikes.time[n] = all.time[slot[n]];
      spikes.slope[n] = all.slope[slot[n]];
      if (options.spike_sets_v()) spikes.slope_after[n] = all.slope_after[slot[n]];
      if (options.jumps) spikes.cause[n] = all.cause[slot[n]];
    }
    // A spike at NaN, which has no place in the order, must be seen: it ends the run.
    const bool has_nan =
        std::any_of(all.time, all.time + slots, [](T time) { return time != time; });
    if (has_nan) spikes.time[first] = std::numeric_limits<T>::quiet_NaN();
  }
};

/// The same spikes for the backward pass, with their cotangents dL/dt; `slot` is null if the arrays
/// have all slots (samples, slots).
template <class T>
struct StoredSpikes {
  ForwardSpikes<T> spikes;
  const std::int32_t* slot;
  Index capacity;

  /// Return all slots of some samples, from `first` on. If only the earliest spikes are stored, they
  /// are copied to memory in which, in slots without a spike, only the time is valid: the backward
  /// pass reads nothing else there.
  ForwardSpikes<T> slots_of(Index first, Index samples, Index slots, const Options& options,
                            Scratch<T>& scratch) const {
    if (!slot) {
      const Index offset = first * slots, after = options.spike_sets_v() ? offset : 0;
      return {spikes.time + offset, spikes.slope + offset, spikes.slope_after + after,
              spikes.cotangent + offset, spikes.cause + (options.jumps ? offset : 0)};
    }
    const Spikes<T> all = all_slots(scratch, samples * slots, options, nullptr);
    T* const cotangents = ensure_capacity(scratch.spike_cotangent, samples * slots);
    std::fill_n(all.time, samples * slots, std::numeric_limits<T>::infinity());
    for (Index sample = 0; sample < samples; ++sample)
      for (Index n = (first + sample) * capacity; n < (first + sample + 1) * capacity; ++n) {
        if (slot[n] < 0 || slot[n] >= slots) continue;
        const Index place = sample * slots + slot[n];
        all.time[place] = spikes.time[n];
        all.slope[place] = spikes.slope[n];
        cotangents[place] = spikes.cotangent[n];
        if (options.spike_sets_v()) all.slope_after[place] = spikes.slope_after[n];
        if (options.jumps) all.cause[place] = spikes.cause[n];
      }
    return {all.time, all.slope, all.slope_after, cotangents, all.cause};
  }
};

/// One sample of a batch, as a population with a batch of one list per position.
template <class T>
struct SampleView {
  Population<T> population;
  TapTable<T> taps;

  SampleView(const Population<T>& batch_population, const TapTable<T>& batch_taps, Index sample)
      : population(batch_population), taps(batch_taps) {
    population.batch = batch_population.positions;
    taps.samples = 1;
    taps.time += sample * batch_population.arrivals;
    taps.channel += sample * batch_population.arrivals;
  }
};

/// Run `layer_forward` on the lists of arrivals that the events produce.
///
/// `spikes`: the slots of all spikes, without times if only the earliest spikes are stored.
template <class T>
void scatter_forward(const Population<T>& population, const Options& options,
                     const TapTable<T>& taps, const Spikes<T>& spikes,
                     const EarliestSpikes<T>& earliest) {
  const ChannelTargets<T> targets(taps, population.positions);
  const Index neurons = population.positions * population.neurons;
  const Index slots = neurons * options.max_spikes;
  auto slots_from = [&](const Spikes<T>& all, Index sample) -> Spikes<T> {
    const Index first = sample * slots;
    return {all.time + first, all.slope + first,
            all.slope_after + (options.spike_sets_v() ? first : 0), all.count + sample * neurons,
            all.cause + (options.jumps ? first : 0)};
  };
  if (taps.samples < kMinSamplesForSerial) {
    Scratch<T> scratch;
    const ArrivalLists<T> lists(population, taps, targets, options.threads, false, scratch);
    const Spikes<T> all = spikes.time ? spikes
                                      : all_slots(scratch, taps.samples * slots, options,
                                                  spikes.count);
    layer_forward(population, options, lists.sorted(), all);
    return ThreadPool::shared().run(taps.samples, options.threads, [&](Index sample) {
      earliest.store(slots_from(all, sample), slots, options, sample);
    });
  }
  Options serial_options = options;
  serial_options.threads = 1;
  ThreadPool::shared().run(taps.samples, options.threads, [&](Index sample) {
    const SampleView<T> view(population, taps, sample);
    typename Scratch<T>::Lease lease;
    const ArrivalLists<T> lists(view.population, view.taps, targets, 1, false, *lease);
    const Spikes<T> sample_spikes =
        spikes.time ? slots_from(spikes, sample)
                    : all_slots(*lease, slots, options, spikes.count + sample * neurons);
    layer_forward(view.population, serial_options, lists.sorted(), sample_spikes, &*lease);
    earliest.store(sample_spikes, slots, options, sample);
  });
}

/// Run `layer_backward` on the lists of arrivals that the events produce.
template <class T>
void scatter_backward(const Population<T>& population, const Options& options,
                      const TapTable<T>& taps, const StoredSpikes<T>& spikes,
                      const Gradients<T>& gradients) {
  const ChannelTargets<T> targets(taps, population.positions);
  const bool with_time = gradients.time;
  const Index neurons = population.positions * population.neurons;
  const Index slots = neurons * options.max_spikes;
  if (taps.samples < kMinSamplesForSerial) {
    Scratch<T> scratch;
    const ForwardSpikes<T> all = spikes.slots_of(0, taps.samples, slots, options, scratch);
    const ArrivalLists<T> lists(population, taps, targets, options.threads, with_time, scratch);
    return layer_backward(population, options, lists.sorted(), all, gradients, taps.samples);
  }
  Options serial_options = options;
  serial_options.threads = 1;
  const Index weight_count = population.rows * population.neurons;
  const Index parameter_count = gradients.parameters ? gradients.fields * neurons : 0;
  const WorkUnits units{1, std::min(kPartialGradients, taps.samples), taps.samples};
  Array<T> by_weight(units.size() * weight_count, T(0));
  Array<double> by_parameters(units.size() * parameter_count, 0.0);
  ThreadPool::shared().run(units.size(), options.threads, [&](Index unit) {
    Array<T> sample_weight(weight_count), sample_parameters(parameter_count);
    for (Index sample = units.begin(unit); sample < units.begin(unit + 1); ++sample) {
      typename Scratch<T>::Lease lease;
      const SampleView<T> view(population, taps, sample);
      const ArrivalLists<T> lists(view.population, view.taps, targets, 1, with_time, *lease);
      const ForwardSpikes<T> sample_spikes = spikes.slots_of(sample, 1, slots, options, *lease);
      const Gradients<T> sample_gradients{
          sample_weight.data(), parameter_count ? sample_parameters.data() : nullptr,
          gradients.fields, with_time ? gradients.time + sample * population.arrivals : nullptr};
      layer_backward(view.population, serial_options, lists.sorted(), sample_spikes,
                     sample_gradients, 1, &*lease);
      for (Index n = 0; n < weight_count; ++n)
        by_weight[unit * weight_count + n] += sample_weight[n];
      for (Index n = 0; n < parameter_count; ++n)
        by_parameters[unit * parameter_count + n] += sample_parameters[n];
    }
  });
  std::fill_n(gradients.weight, weight_count, T(0));
  for (Index unit = 0; unit < units.size(); ++unit)
    for (Index n = 0; n < weight_count; ++n)
      gradients.weight[n] += by_weight[unit * weight_count + n];
  for (Index n = 0; n < parameter_count; ++n) {
    double sum = 0;
    for (Index unit = 0; unit < units.size(); ++unit)
      sum += by_parameters[unit * parameter_count + n];
    gradients.parameters[n] = T(sum);
  }
}

}  // namespace native
