// Simulation of a recurrent group slice by slice, and its gradient, for groups whose weights are
// lists of synapses and whose feedback is always delayed.
//
// A slice of time is not longer than the shortest delay: spikes within a slice arrive in later
// slices only, so the neurons do not affect each other within it. Each neuron advances from one of
// its arrivals to the next, and neurons without arrivals that cannot cross the threshold are
// skipped. The work therefore grows with the number of arrivals at single neurons; the simulation
// event by event (group.h) sweeps over all neurons for each event.
//
//     slice        |  0  |  1  |  2  | ...
//     bins         |  -  |  x x|  x  | ...   arrivals at neurons, by slice and not sorted
//                           ^
//                           spikes of earlier slices and events from outside
//
// The neurons are divided into ranges ("parts"), which threads simulate in parallel within a slice.
// Each part has bins of its own and its own lists of synapses, by presynaptic neuron.
//
// The backward pass (`SliceBackward`) takes the slices in reverse order. It restores the arrivals
// from the spike train, so nothing is stored for them.

#pragma once

#include "group_population.h"

namespace native {

/// Division of a group's time into slices and of its neurons into parts.
template <class T>
class SlicePlan {
 public:
  /// A synapse from a neuron of the group, or from outside (without a delay).
  struct Synapse {
    std::int32_t target, number;  // number: index in the list of all weights
    T weight, delay;
  };

  /// Return whether the group can be simulated slice by slice.
  static bool applies(const Population<T>& population, const Feedback<T>& feedback) {
    if (!feedback.list_begin || feedback.immediate || feedback.delayed == 0) return false;
    const double shortest = delay_range(feedback).first;
    return shortest > 0 && longest_wait(population, feedback) < kMaxBins * shortest &&
           population.t_end < kMaxSlices * shortest;
  }

  /// Return the shortest and the longest delay of those that are finite; (0, 0) if there are none.
  static std::pair<double, double> delay_range(const Feedback<T>& feedback) {
    double shortest = std::numeric_limits<double>::infinity(), longest = 0;
    for (Index n = 0; n < feedback.delayed; ++n) {
      const double delay = feedback.delay[n];
      if (!(delay < std::numeric_limits<double>::infinity())) continue;
      shortest = std::min(shortest, delay);
      longest = std::max(longest, delay);
    }
    return {longest > 0 ? shortest : 0, longest};
  }

  SlicePlan(const Population<T>& population, const Feedback<T>& feedback)
      : population_(population),
        feedback_(feedback),
        parts_(count_parts(population.neurons)),
        outside_rows_(feedback.first_delayed_row(population)),
        sources_(outside_rows_ + population.neurons) {
    constexpr double kMargin = 1 - 1e-6;  // rounding must not move an arrival into its own slice
    width_ = delay_range(feedback).first * kMargin;
    per_width_ = 1 / width_;
    while (bins_ < longest_wait(population, feedback) * per_width_ + 3) bins_ *= 2;
    last_slice_ = Index(population.t_end * per_width_);
    if (last_slice_ > 0 && width_ * last_slice_ > population.t_end) --last_slice_;
    sort_synapses();
  }

  double width() const { return width_; }
  Index bins() const { return bins_; }
  Index parts() const { return parts_; }
  Index slice_of(double time) const { return std::min(Index(time * per_width_), last_slice_); }
  Index last_slice() const { return last_slice_; }
  Index first_neuron(Index part) const { return part * population_.neurons / parts_; }

  /// Slice of an arrival that a spike in `slice` causes.
  Index arrival_slice(double due, Index slice) const { return std::max(slice_of(due), slice + 1); }
  /// Return whether an arrival or the end of a refractory period acts before the end.
  bool acts(double due) const { return T(due) < population_.t_end; }

  /// Call with each synapse of a source in a part; sources are the rows of arrivals from outside,
  /// then the neurons.
  template <class Call>
  void for_each(Index part, Index source, Call&& call) const {
    const Index list = part * sources_ + source;
    for (Index n = begin_[list]; n < begin_[list + 1]; ++n) call(synapses_[n]);
  }
  template <class Call>
  void for_each_from_neuron(Index part, Index neuron, Call&& call) const {
    for_each(part, outside_rows_ + neuron, call);
  }
  /// Return whether a row of arrivals from outside has synapses in a part.
  bool reaches(Index part, std::int32_t row) const {
    // rows that are not valid stand for a row of zeros
    return parts_of_row_[std::min<std::uint32_t>(row, outside_rows_)] >> part & 1;
  }

 private:
  static constexpr double kMaxBins = 4096, kMaxSlices = 1e12;
  static constexpr Index kNeuronsPerPart = 4096, kMaxParts = 8;

  /// Return the longest time from a spike to what it causes within the simulation: an arrival, or the
  /// end of the refractory period, which the backward pass puts into bins, too.
  static double longest_wait(const Population<T>& population, const Feedback<T>& feedback) {
    double longest = delay_range(feedback).second;
    for (Index n = 0; feedback.refractory && n < population.neurons; ++n)
      if (feedback.refractory[n] < population.t_end)
        longest = std::max(longest, double(feedback.refractory[n]));
    return longest;
  }

  /// Return the number of parts. It does not depend on the number of threads, nor do results, and is
  /// a power of two, so that two or four threads are equally busy.
  static Index count_parts(Index neurons) {
    Index parts = 1;
    while (parts < kMaxParts && 2 * parts * kNeuronsPerPart <= neurons) parts *= 2;
    return parts;
  }

  /// Sort the synapses by part and source, in the order of their rows.
  void sort_synapses() {
    const Index synapses = feedback_.list_begin[population_.rows];
    std::vector<std::int32_t> part_of(population_.neurons);
    for (Index part = 0; part < parts_; ++part)
      std::fill(part_of.begin() + first_neuron(part), part_of.begin() + first_neuron(part + 1),
                std::int32_t(part));
    const auto for_each_synapse = [&](auto&& call) {
      for (Index row = 0; row < population_.rows; ++row) {
        Index source = row;
        T delay = 0;
        if (row >= outside_rows_) {
          const Index neuron = feedback_.sender[row - outside_rows_];
          if (neuron < 0 || neuron >= population_.neurons) continue;
          source = outside_rows_ + neuron;
          delay = feedback_.delay[row - outside_rows_];
        }
        for (Index n = feedback_.list_begin[row]; n < feedback_.list_begin[row + 1]; ++n)
          call(part_of[feedback_.list_target[n]] * sources_ + source, n, delay);
      }
    };
    begin_.assign(parts_ * sources_ + 1, 0);
    for_each_synapse([&](Index list, Index, T) { ++begin_[list + 1]; });
    for (std::size_t n = 1; n < begin_.size(); ++n) begin_[n] += begin_[n - 1];
    synapses_ = Array<Synapse>(synapses);
    std::vector<std::int32_t> place(begin_.begin(), begin_.end() - 1);
    for_each_synapse([&](Index list, Index n, T delay) {
      synapses_[place[list]++] = {feedback_.list_target[n], std::int32_t(n), population_.weight[n],
                                  delay};
    });
    parts_of_row_.assign(outside_rows_ + 1, 0);
    for (Index part = 0; part < parts_; ++part)
      for (Index row = 0; row < outside_rows_; ++row)
        if (begin_[part * sources_ + row] < begin_[part * sources_ + row + 1])
          parts_of_row_[row] |= std::uint8_t(1) << part;
  }

  const Population<T>& population_;
  const Feedback<T>& feedback_;
  Index parts_, outside_rows_, sources_, bins_ = 1, last_slice_;
  double width_, per_width_;  // length of a slice, seconds, and its inverse
  Array<Synapse> synapses_;
  std::vector<std::int32_t> begin_;  // (parts * sources + 1,) first synapse of each list
  std::vector<std::uint8_t> parts_of_row_;
};

/// Ring of bins, one for each slice from the current one on, and the arrivals of the current slice
/// by neuron. `Arrival` has a member `target`. Neurons are those of one part.
template <class Arrival>
class SliceBins {
 public:
  /// The arrivals of a neuron in the current slice: `sorted()[begin]` to `sorted()[end - 1]`.
  struct Group {
    std::int32_t neuron, begin, end;
  };

  /// `bins`: a power of two.
  SliceBins(Index bins, Index first_neuron, Index end_neuron)
      : bins_(bins), first_neuron_(first_neuron), places_(end_neuron - first_neuron, 0) {}

  void add(Index slice, const Arrival& arrival) { bin(slice).push_back(arrival); }
  bool is_empty(Index slice) const { return bins_[slice & Index(bins_.size() - 1)].empty(); }

  /// Add many arrivals: call fill(add), which calls add(arrival) for each.
  template <class Fill>
  void extend(Index slice, Fill&& fill) {
    // `push_back` would load and store the end of the bin each time.
    std::vector<Arrival>& arrivals = bin(slice);
    std::size_t count = arrivals.size();
    Arrival *place = arrivals.data() + count, *end = place;
    fill([&](const Arrival& arrival) {
      if (place == end) {
        count = place - arrivals.data();
        arrivals.resize(count + count / 2 + 256);
        place = arrivals.data() + count;
        end = arrivals.data() + arrivals.size();
      }
      *place++ = arrival;
    });
    arrivals.resize(place - arrivals.data());
  }

  /// Sort the arrivals of a slice by neuron, and those of each neuron in the order of `precedes`;
  /// empty the bin.
  template <class Precedes>
  void sort(Index slice, Precedes&& precedes) {
    std::vector<Arrival>& arrivals = bin(slice);
    const auto place_of = [&](Index neuron) -> std::int32_t& {
      return places_[neuron - first_neuron_];
    };
    groups_.clear();
    for (const Arrival& arrival : arrivals)
      if (place_of(arrival.target)++ == 0) groups_.push_back({arrival.target, 0, 0});
    std::int32_t place = 0;
    for (Group& group : groups_) {
      group.begin = place;
      place += place_of(group.neuron);
      group.end = place;
      place_of(group.neuron) = group.begin;
    }
    if (sorted_.size() < arrivals.size()) sorted_.resize(arrivals.size() + arrivals.size() / 4);
    for (const Arrival& arrival : arrivals) sorted_[place_of(arrival.target)++] = arrival;
    arrivals.clear();
    for (const Group& group : groups_) {
      place_of(group.neuron) = 0;
      if (group.end - group.begin > 1)
        sort_range(sorted_.data() + group.begin, sorted_.data() + group.end, precedes);
    }
  }

  const Arrival* sorted() const { return sorted_.data(); }
  const std::vector<Group>& groups() const { return groups_; }
  /// Return the number of arrivals in the current slice.
  Index count() const { return groups_.empty() ? 0 : groups_.back().end; }

  void clear() {
    for (auto& bin : bins_) bin.clear();
  }

 private:
  std::vector<Arrival>& bin(Index slice) { return bins_[slice & Index(bins_.size() - 1)]; }

  template <class Precedes>
  static void sort_range(Arrival* first, Arrival* end, Precedes&& precedes) {
    constexpr Index kMaxInserted = 16;
    if (end - first > kMaxInserted) return std::stable_sort(first, end, precedes);
    for (Arrival* next = first + 1; next < end; ++next) {
      const Arrival arrival = *next;
      Arrival* place = next;
      for (; place > first && precedes(arrival, place[-1]); --place) *place = place[-1];
      *place = arrival;
    }
  }

  std::vector<std::vector<Arrival>> bins_;
  Index first_neuron_;
  std::vector<std::int32_t> places_;  // for each neuron, 0 except while sorting
  std::vector<Group> groups_;
  std::vector<Arrival> sorted_;
};

/// Coefficients of the flow over many time intervals, for neurons with the same time constants.
class FlowTable {
 public:
  /// Reserve room and return the array of intervals to fill in, seconds.
  double* intervals(Index count) {
    constexpr Index kBlock = kWidth<double>;
    const Index padded = (count + kBlock - 1) / kBlock * kBlock;
    for (Array<double>* array : {&time_, &em_, &es_, &k_})
      if (array->size() < padded) *array = Array<double>(padded + padded / 4, 0.0);
    count_ = count;
    return time_.data();
  }

  void compute(const TimeConstants& taus) {
    using V = DoubleVector;
    const V one = broadcast(1.0), zero = {};
    const double per_gap = taus.gap > 0 ? 1 / taus.gap : 0;
    for (Index n = 0; n < count_; n += kWidth<double>) {
      const V t = load<double>(time_.data() + n), slow_expm1 = expm1_lanes(-t * taus.slow);
      const V gap_expm1 = taus.gap == taus.slow ? slow_expm1 : expm1_lanes(-t * taus.gap);
      const V slower = one + slow_expm1, faster = slower + slower * gap_expm1;
      const V ratio = gap_expm1 < zero ? -gap_expm1 * per_gap : t;
      store<double>(em_.data() + n, taus.mem_longer ? slower : faster);
      store<double>(es_.data() + n, taus.mem_longer ? faster : slower);
      store<double>(k_.data() + n, slower * ratio * taus.gain);
    }
  }

  Flow operator[](Index n) const { return {em_[n], es_[n], k_[n]}; }

 private:
  Array<double> time_, em_, es_, k_;
  Index count_ = 0;
};

/// Places in the log of a group that is simulated in slices. It has two entries for each spike; the
/// log's number of steps is `kIsSliced` then.
struct SliceLog {
  static constexpr std::int32_t kIsSliced = -1;
  /// Slope of v at a spike, and after the refractory period that follows it.
  static Index slope(Index spike) { return 2 * spike; }
  static Index slope_after(Index spike) { return 2 * spike + 1; }
  /// In the array of waits: what rounding a spike's time has removed.
  static Index time_remainder(Index spike) { return 2 * spike; }
};

// ---- forward pass

template <class T>
class SliceForward {
 public:
  SliceForward(const Population<T>& population, const Options& options, const Feedback<T>& feedback,
               const SortedArrivals<T>& sorted, const SlicePlan<T>& plan,
               const PopulationTiles<T>& tiles, const Spikes<T>& spikes, const SpikeTrain<T>& train,
               const EventLog<T>& log)
      : population_(population),
        options_(options),
        feedback_(feedback),
        plan_(plan),
        tiles_(tiles),
        sorted_(sorted),
        spikes_(spikes),
        train_(train),
        log_(log),
        neurons_(population.neurons),
        firing_(population.neurons),
        next_(population.neurons) {
    for (Index part = 0; part < plan.parts(); ++part)
      parts_.emplace_back(plan.bins(), plan.first_neuron(part), plan.first_neuron(part + 1));
  }

  /// Simulate one sample.
  void run(Index sample) {
    start_sample(sample);
    const double t_end = population_.t_end;
    const Index arrivals = sorted_.count(sample);
    const T* const times = sorted_.time + sorted_.first(sample);
    max_spikes_ = 16 * (population_.arrivals + train_.events + 1);
    const Index last = plan_.last_slice();
    for (Index slice = 0; slice <= last && spike_count_ <= max_spikes_;
         slice = next_slice(slice, times, arrivals)) {
      begin_ = plan_.width() * slice;
      const double next_begin = plan_.width() * (slice + 1);
      is_last_ = slice == last;
      end_ = is_last_ ? t_end : next_begin;
      first_outside_ = end_outside_;
      while (end_outside_ < arrivals && (is_last_ || times[end_outside_] < next_begin))
        ++end_outside_;
      ThreadPool::shared().run(plan_.parts(), options_.threads,
                               [&](Index part) { simulate_slice(part, slice); });
      record_spikes(slice);
    }
    log_.used[sample] = SliceLog::kIsSliced;
    train_.total[sample] =
        std::int32_t(std::min<Index>(spike_count_, std::numeric_limits<std::int32_t>::max()));
  }

 private:
  static constexpr double kNever = std::numeric_limits<double>::infinity();
  // keeps a lower bound of a time valid despite rounding
  static constexpr double kBoundFactor = 1 - 8 * rounding_of(double());

  struct Neuron {
    double v, j, time;  // state at a time, that of the last arrival or spike
    double threshold;   // inf during the refractory period

    void advance(const Flow& flow, double later) {
      v = v * flow.em + j * flow.k;
      j *= flow.es;
      time = later;
    }
  };

  /// What a neuron needs only where it may fire.
  struct Firing {
    double release;  // end of the refractory period; inf outside it
    bool is_exact;   // `next_` is the time of the crossing, not a lower bound
    /// Number of the last spike; before it has a number, -1 - its index in `Part::spikes`.
    Index last_spike;
  };

  struct Arrival {
    T offset;  // time since the beginning of the slice
    std::int32_t target;
    T weight;
  };

  struct Spike {
    double time;
    std::int32_t neuron;
    T slope, slope_after;  // see `SliceLog`
    Index number;
  };

  struct Part {
    Part(Index bins, Index first, Index end)
        : bins(bins, first, end), first(first), end(end) {}

    SliceBins<Arrival> bins;
    FlowTable flows;            // from each arrival's predecessor to it
    Index first, end;           // range of neurons
    std::vector<Spike> spikes;  // of the current slice
    std::vector<std::int32_t> outside;  // numbers of the arrivals from outside in the slice
    double next = 0;            // earliest time at which a neuron may act without an arrival
  };

  void start_sample(Index sample) {
    sample_ = sample;
    const Index first_neuron = sample * population_.neurons, slots = options_.max_spikes;
    std::fill_n(spikes_.time + first_neuron * slots, population_.neurons * slots,
                std::numeric_limits<T>::infinity());
    std::fill_n(spikes_.slope + first_neuron * slots, population_.neurons * slots, T(1));
    std::fill_n(spikes_.count + first_neuron, population_.neurons, 0);
    std::fill_n(train_.time + sample * train_.events, train_.events,
                std::numeric_limits<T>::infinity());
    std::fill_n(train_.neuron + sample * train_.events, train_.events, 0);
    for (Part& part : parts_) {
      part.bins.clear();
      part.spikes.clear();
    }
    spike_count_ = first_outside_ = end_outside_ = 0;
    merged_.clear();
    for (Index n = 0; n < population_.neurons; ++n) {
      const auto& tile = tiles_.tile(n / PopulationTiles<T>::kLanes);
      const int lane = n % PopulationTiles<T>::kLanes;
      neurons_[n] = {tile.v_start[lane], tile.j_start[lane], 0, tiles_.threshold(n)};
      firing_[n] = {kNever, false, -1};
      predict(n);
      if (tile.starts_above[lane]) next_[n] = 0;
    }
  }

  bool has_log() const { return log_.steps > 0; }

  /// Return the next slice in which something may happen.
  Index next_slice(Index slice, const T* times, Index arrivals) const {
    if (!merged_.empty()) return slice + 1;
    Index next = std::numeric_limits<Index>::max() / 2;
    if (end_outside_ < arrivals) next = plan_.slice_of(times[end_outside_]);
    for (const Part& part : parts_) {
      if (part.next < kNever) next = std::min(next, plan_.slice_of(part.next));
      const Index last = std::min(next, slice + plan_.bins());
      for (Index n = slice + 1; n < last; ++n)
        if (!part.bins.is_empty(n)) {
          next = n;
          break;
        }
    }
    return std::max(std::min(next, plan_.last_slice()), slice + 1);
  }

  void simulate_slice(Index number, Index slice) {
    Part& part = parts_[number];
    part.spikes.clear();
    deliver(number, slice);
    add_outside(number, slice);
    part.bins.sort(slice, [](const Arrival& a, const Arrival& b) { return a.offset < b.offset; });
    if (tiles_.uniform()) compute_flows(part);
    for (const auto& group : part.bins.groups()) {
      simulate_arrivals(part, group);
      if (next_[group.neuron] <= end_) act_until(part, group.neuron, end_, is_last_);
    }
    act_without_arrivals(part);
  }

  /// Let the neurons act that do so within the slice, and determine when the next one may act.
  void act_without_arrivals(Part& part) {
    using V = DoubleVector;
    constexpr Index kLanes = kWidth<double>;
    const V end = broadcast(end_);
    const double* const next = next_.data();
    Index n = part.first;
    for (; n + kLanes <= part.end; n += kLanes)
      for (unsigned lanes = at_least(end, load<double>(next + n)); lanes; lanes &= lanes - 1)
        act_until(part, n + __builtin_ctz(lanes), end_, is_last_);
    for (; n < part.end; ++n) act_until(part, n, end_, is_last_);
    V earliest = broadcast(kNever);
    part.next = kNever;
    for (n = part.first; n + kLanes <= part.end; n += kLanes) {
      const V times = load<double>(next + n);
      earliest = times < earliest ? times : earliest;
    }
    for (int lane = 0; lane < kLanes; ++lane) part.next = std::min(part.next, earliest[lane]);
    for (; n < part.end; ++n) part.next = std::min(part.next, next[n]);
  }

  double arrival_time(const Arrival& arrival, double previous) const {
    return std::max(begin_ + arrival.offset, previous);
  }

  void compute_flows(Part& part) {
    const Arrival* const arrivals = part.bins.sorted();
    double* const intervals = part.flows.intervals(part.bins.count());
    for (const auto& group : part.bins.groups()) {
      double time = neurons_[group.neuron].time;
      for (Index n = group.begin; n < group.end; ++n) {
        const double next_time = arrival_time(arrivals[n], time);
        intervals[n] = next_time - time;
        time = next_time;
      }
    }
    part.flows.compute(tiles_.taus(0));
  }

  /// Put the arrivals from outside into the bin of the slice.
  void add_outside(Index number, Index slice) {
    Part& part = parts_[number];
    const T* const times = sorted_.time + sorted_.first(sample_);
    const std::int32_t* const rows = sorted_.row + sorted_.first(sample_);
    // Select the arrivals without a branch, which the processor could not predict.
    part.outside.resize(end_outside_ - first_outside_);
    std::int32_t* const selected = part.outside.data();
    Index count = 0;
    for (Index n = first_outside_; n < end_outside_; ++n) {
      selected[count] = std::int32_t(n);
      count += plan_.reaches(number, rows[n]);
    }
    part.bins.extend(slice, [&](auto&& add) {
      for (Index n = 0; n < count; ++n) {
        const T offset = T(times[selected[n]] - begin_);
        plan_.for_each(number, rows[selected[n]], [&](const auto& synapse) {
          add({offset, synapse.target, synapse.weight});
        });
      }
    });
  }

  /// Put the arrivals that the spikes of the preceding slice cause into the bins of a part.
  void deliver(Index number, Index slice) {
    SliceBins<Arrival>& bins = parts_[number].bins;
    for (const Spike& spike : merged_)
      plan_.for_each_from_neuron(number, spike.neuron, [&](const auto& synapse) {
        const double due = spike.time + synapse.delay;
        if (!plan_.acts(due)) return;  // NaN, too
        const Index arrival_slice = plan_.arrival_slice(due, merged_slice_);
        const double offset = due - plan_.width() * arrival_slice;
        bins.add(std::max(arrival_slice, slice), {T(offset), synapse.target, synapse.weight});
      });
  }

  /// Simulate a neuron to its last arrival in the slice.
  void simulate_arrivals(Part& part, const typename SliceBins<Arrival>::Group& group) {
    const Index neuron = group.neuron;
    Neuron& state = neurons_[neuron];
    const double leak = tiles_.taus(neuron).leak;
    const bool has_flows = tiles_.uniform();
    const Arrival* const arrivals = part.bins.sorted();
    double time = state.time;
    for (Index n = group.begin; n < group.end; ++n) {
      const double next_time = arrival_time(arrivals[n], time);
      // `next_` is known for the first arrival only.
      const bool is_first = n == group.begin;
      if (is_first ? next_[neuron] <= next_time : !is_quiet(state, leak, next_time)) {
        if (!is_first) predict(neuron);
        if (!act_until(part, neuron, next_time, true)) return;
      }
      if (has_flows && state.time == time)
        state.advance(part.flows[n], next_time);
      else
        advance(neuron, next_time);
      state.j += arrivals[n].weight;
      time = next_time;
    }
    predict(neuron);
  }

  /// Return whether a neuron cannot act until a time without arrivals, by the bound of `predict`.
  static bool is_quiet(const Neuron& state, double leak, double time) {
    constexpr double kMargin = 1 + 8 * rounding_of(double());
    const double gap = state.threshold - state.v;
    return gap > 0 && state.threshold > 0 && state.threshold < kNever &&
           (state.j <= state.threshold ||
            (state.j - state.v) * leak * (time - state.time) * kMargin < gap);
  }

  /// Let a neuron do what it does without arrivals, before a time or until it. Return false if it
  /// fires far more often than the results can hold.
  bool act_until(Part& part, Index neuron, double time, bool inclusive) {
    while (next_[neuron] < time || (inclusive && next_[neuron] == time)) {
      act(part, neuron);
      if (Index(part.spikes.size()) > max_spikes_) return false;
    }
    return true;
  }

  /// Let a neuron do what it does next without an arrival.
  void act(Part& part, Index neuron) {
    Neuron& state = neurons_[neuron];
    if (firing_[neuron].release < kNever) return release(part, neuron);
    if (state.v >= state.threshold || firing_[neuron].is_exact) return fire(part, neuron);
    // The lower bound has been reached: find the time of the crossing.
    const TimeConstants& taus = tiles_.taus(neuron);
    const double duration = std::max(population_.t_end - state.time, 0.0);
    const Flow flow = flow_over(taus, duration);
    const double v_end = state.v * flow.em + state.j * flow.k, j_end = state.j * flow.es;
    constexpr double kTiny = double(std::numeric_limits<T>::min()) / rounding_of(T());
    const bool crosses = v_end >= state.threshold ||
                         (has_peak(taus, state.v, state.j, v_end, j_end, kTiny) &&
                          peak_reaches(taus, state.v, state.j, state.threshold));
    next_[neuron] = kNever;
    if (!crosses) return;
    const Crossing crossing =
        find_crossing(taus, state.v, state.j, state.threshold, duration,
                      v_end >= state.threshold, tolerance_of(double()));
    next_[neuron] = state.time + crossing.wait;
    firing_[neuron].is_exact = true;
  }

  void advance(Index neuron, double time) {
    Neuron& state = neurons_[neuron];
    if (!(time > state.time)) return;
    state.advance(flow_over(tiles_.taus(neuron), time - state.time), time);
  }

  /// Set the earliest time at which a neuron may act: the end of its refractory period, or a lower
  /// bound of the next crossing.
  void predict(Index neuron) {
    const Neuron& state = neurons_[neuron];
    firing_[neuron].is_exact = false;
    double& next = next_[neuron];
    if (state.threshold == kNever) {
      next = firing_[neuron].release;
    } else if (state.v >= state.threshold || !(state.threshold > 0)) {
      next = state.time;
    } else if (state.j > state.threshold) {
      // v rises at most as fast as now, for v grows and j decays.
      next = state.time + (state.threshold - state.v) /
                              ((state.j - state.v) * tiles_.taus(neuron).leak) * kBoundFactor;
    } else {
      next = kNever;  // v does not exceed both v and j
    }
  }

  void fire(Part& part, Index neuron) {
    Neuron& state = neurons_[neuron];
    const double v_threshold = tiles_.threshold(neuron);
    advance(neuron, next_[neuron]);
    const T slope = T(tiles_.taus(neuron).rate(v_threshold, state.j));
    std::int32_t& count = spikes_.count[sample_ * population_.neurons + neuron];
    if (count < options_.max_spikes) {
      const Index offset = (sample_ * population_.neurons + neuron) * options_.max_spikes + count;
      spikes_.time[offset] = T(state.time);
      spikes_.slope[offset] = slope;
    }
    ++count;
    firing_[neuron].last_spike = -1 - Index(part.spikes.size());
    part.spikes.push_back({state.time, std::int32_t(neuron), slope,
                           std::numeric_limits<T>::infinity(), 0});
    const T refractory = feedback_.refractory ? feedback_.refractory[neuron] : T(0);
    double reset = tiles_.v_reset(neuron);
    if (options_.subtract && !(refractory > 0)) reset += std::max(state.v - v_threshold, 0.0);
    state.v = reset;
    if (options_.once) {
      state.threshold = kNever;
    } else if (refractory > 0) {
      state.threshold = kNever;
      const double release = state.time + refractory;
      firing_[neuron].release = plan_.acts(release) ? release : kNever;
    }
    predict(neuron);
  }

  /// End a refractory period.
  void release(Part& part, Index neuron) {
    Neuron& state = neurons_[neuron];
    Firing& firing = firing_[neuron];
    advance(neuron, firing.release);
    firing.release = kNever;
    state.v = tiles_.v_reset(neuron);
    state.threshold = tiles_.threshold(neuron);
    const T slope = T(tiles_.taus(neuron).rate(state.v, state.j));
    if (firing.last_spike < 0)
      part.spikes[-1 - firing.last_spike].slope_after = slope;
    else if (has_log() && firing.last_spike < train_.events)
      log_.slope[sample_ * log_.steps + SliceLog::slope_after(firing.last_spike)] = slope;
    predict(neuron);
  }

  /// Add the spikes of all parts to the spike train and the log, in the order of their times.
  void record_spikes(Index slice) {
    merged_.clear();
    merged_slice_ = slice;
    for (Part& part : parts_) merged_.insert(merged_.end(), part.spikes.begin(), part.spikes.end());
    std::stable_sort(merged_.begin(), merged_.end(), [](const Spike& one, const Spike& other) {
      return one.time != other.time ? one.time < other.time : one.neuron < other.neuron;
    });
    for (const Spike& spike : merged_) {
      const Index number = spike_count_++;
      firing_[spike.neuron].last_spike = number;
      if (number >= train_.events) continue;
      const Index first = sample_ * log_.steps;
      train_.time[sample_ * train_.events + number] = T(spike.time);
      train_.neuron[sample_ * train_.events + number] = spike.neuron;
      if (!has_log()) continue;
      log_.slope[first + SliceLog::slope(number)] = spike.slope;
      log_.slope[first + SliceLog::slope_after(number)] = spike.slope_after;
      log_.wait[first + SliceLog::time_remainder(number)] = T(spike.time - double(T(spike.time)));
    }
  }

  const Population<T>& population_;
  const Options& options_;
  const Feedback<T>& feedback_;
  const SlicePlan<T>& plan_;
  const PopulationTiles<T>& tiles_;
  const SortedArrivals<T>& sorted_;
  const Spikes<T>& spikes_;
  const SpikeTrain<T>& train_;
  const EventLog<T>& log_;
  std::vector<Neuron> neurons_;
  std::vector<Firing> firing_;
  std::vector<double> next_;  // earliest time at which each neuron may act without an arrival
  std::vector<Part> parts_;
  std::vector<Spike> merged_;  // spikes of the slice before the current one
  Index merged_slice_ = 0;
  double begin_ = 0, end_ = 0;                     // of the current slice
  bool is_last_ = false;                           // the current slice is the last one
  Index first_outside_ = 0, end_outside_ = 0;      // its arrivals from outside
  Index sample_ = 0, spike_count_ = 0, max_spikes_ = 0;
};

// ---- backward pass

template <class T>
class SliceBackward {
 public:
  SliceBackward(const Population<T>& population, const Options& options,
                const Feedback<T>& feedback, const SortedArrivals<T>& sorted,
                const SlicePlan<T>& plan, const PopulationTiles<T>& tiles, const Spikes<T>& spikes,
                const SpikeTrain<T>& train, const EventLog<T>& log, const Cotangents<T>& cotangents,
                bool with_taus)
      : population_(population),
        options_(options),
        feedback_(feedback),
        sorted_(sorted),
        plan_(plan),
        tiles_(tiles),
        spikes_(spikes),
        train_(train),
        log_(log),
        cotangents_(cotangents),
        with_taus_(with_taus),
        costates_(population.neurons),
        by_delay_(feedback.list_begin[population.rows]) {
    for (Index part = 0; part < plan.parts(); ++part)
      parts_.emplace_back(plan.bins(), plan.first_neuron(part), plan.first_neuron(part + 1));
  }

  /// Add the gradients of a sample: `by_weight` (synapses,), `by_time` (arrivals,) in sorted order
  /// or null, `parameter_gradients` (fields, lanes) or null, `by_delay` (delayed,).
  void run(Index sample, T* by_weight, T* by_time, double* parameter_gradients, double* by_delay) {
    sample_ = sample;
    by_weight_ = by_weight;
    parameter_gradients_ = parameter_gradients;
    std::fill(costates_.begin(), costates_.end(), Costate{{}, population_.t_end});
    std::fill_n(by_delay_.data(), by_delay_.size(), 0.0);
    arrival_ = sorted_.count(sample);
    spike_count_ = std::clamp<Index>(train_.total[sample], 0, train_.events);
    number_spikes();
    for (Part& part : parts_) {
      part.bins.clear();
      part.by_spike.assign(spike_count_, 0.0);
      part.by_time.assign(by_time ? arrival_ : 0, 0.0);
    }
    const Index arrivals = arrival_;
    spike_ = spike_count_;
    for (Index slice = previous_slice(plan_.last_slice() + 1); slice >= 0;
         slice = previous_slice(slice)) {
      const Index end_spike = spike_, end_arrival = arrival_;
      while (spike_ > 0 && spike_slice(spike_ - 1) > slice - plan_.bins()) --spike_;
      const double begin = plan_.width() * slice;
      while (arrival_ > 0 && times()[arrival_ - 1] >= begin) --arrival_;
      ThreadPool::shared().run(plan_.parts(), options_.threads, [&](Index part) {
        collect(part, slice, spike_, end_spike, arrival_, end_arrival);
        propagate_slice(part, slice);
      });
    }
    if (parameter_gradients_) add_initial_state();
    for (Index n = 0; by_time && n < arrivals; ++n) {
      double sum = 0;
      for (const Part& part : parts_) sum += part.by_time[n];
      by_time[n] = T(sum);
    }
    const Index first_delayed_row = feedback_.first_delayed_row(population_);
    for (Index row = 0; row < feedback_.delayed; ++row)
      for (Index n = feedback_.list_begin[first_delayed_row + row];
           n < feedback_.list_begin[first_delayed_row + row + 1]; ++n)
        by_delay[row] += by_delay_[n];
  }

 private:
  struct Costate : NeuronCostate {
    double time;
  };

  /// An event of a neuron: an arrival, its spike, or the end of its refractory period.
  struct Event {
    double time;
    std::int32_t target;
    std::int32_t synapse;  // -1: spike; -2: end of the refractory period
    std::int32_t cause;    // number of the spike; of an arrival from outside n: -1 - n
    T weight;
  };

  struct Part {
    Part(Index bins, Index first, Index end) : bins(bins, first, end), first(first), end(end) {}

    SliceBins<Event> bins;
    Index first, end;              // range of neurons
    std::vector<double> by_spike;  // for each spike, dL/dt through what it causes in this part
    std::vector<double> by_time;   // for each arrival from outside
  };

  const T* times() const { return sorted_.time + sorted_.first(sample_); }
  double spike_time(Index spike) const {
    return double(train_.time[sample_ * train_.events + spike]) +
           double(log_.wait[sample_ * log_.steps + SliceLog::time_remainder(spike)]);
  }
  Index spike_slice(Index spike) const { return plan_.slice_of(spike_time(spike)); }
  Index neuron_of(Index spike) const { return train_.neuron[sample_ * train_.events + spike]; }
  double& parameter_gradient(Field field, Index neuron) {
    return parameter_gradients_[field * tiles_.padded() + neuron];
  }

  /// Number the spikes of each neuron.
  void number_spikes() {
    std::vector<std::int32_t> count(population_.neurons, 0);
    slots_.resize(spike_count_);
    for (Index spike = 0; spike < spike_count_; ++spike) slots_[spike] = count[neuron_of(spike)]++;
  }

  /// Return the last slice before `slice` in which something may happen, or -1.
  Index previous_slice(Index slice) const {
    Index previous = -1;
    if (arrival_ > 0) previous = plan_.slice_of(times()[arrival_ - 1]);
    // The first slice that needs the bins of the next spike.
    if (spike_ > 0) previous = std::max(previous, spike_slice(spike_ - 1) + plan_.bins() - 1);
    previous = std::min(previous, slice - 1);
    for (const Part& part : parts_)
      for (Index n = slice - 1; n > previous && n > slice - plan_.bins(); --n)
        if (!part.bins.is_empty(n)) previous = n;
    return previous;
  }

  /// Put the events that some spikes cause, and arrivals from outside, into the bins of a part.
  void collect(Index number, Index slice, Index first_spike, Index end_spike, Index first_arrival,
               Index end_arrival) {
    Part& part = parts_[number];
    for (Index spike = first_spike; spike < end_spike; ++spike) {
      const double time = spike_time(spike);
      const Index neuron = neuron_of(spike), spike_slice = plan_.slice_of(time);
      const auto cause = std::int32_t(spike);
      if (neuron >= part.first && neuron < part.end) {
        const auto target = std::int32_t(neuron);
        part.bins.add(std::min(spike_slice, slice), {time, target, -1, cause, T(0)});
        const T refractory = feedback_.refractory ? feedback_.refractory[neuron] : T(0);
        const double release = time + refractory;
        const T slope_after = log_.slope[sample_ * log_.steps + SliceLog::slope_after(spike)];
        if (refractory > 0 && std::isfinite(slope_after) && plan_.acts(release))
          part.bins.add(std::min(plan_.slice_of(release), slice),
                        {release, target, -2, cause, T(0)});
      }
      plan_.for_each_from_neuron(number, neuron, [&](const auto& synapse) {
        const double due = time + synapse.delay;
        if (plan_.acts(due))
          part.bins.add(std::min(plan_.arrival_slice(due, spike_slice), slice),
                        {due, synapse.target, synapse.number, cause, synapse.weight});
      });
    }
    const auto* rows = sorted_.row + sorted_.first(sample_);
    for (Index n = first_arrival; n < end_arrival; ++n)
      if (plan_.reaches(number, rows[n]))
        plan_.for_each(number, rows[n], [&](const auto& synapse) {
          part.bins.add(slice, {double(times()[n]), synapse.target, synapse.number,
                                std::int32_t(-1 - n), synapse.weight});
        });
  }

  void propagate_slice(Index number, Index slice) {
    Part& part = parts_[number];
    part.bins.sort(slice, acts_later);
    for (Index n = 0; n < part.bins.count(); ++n) propagate(part, part.bins.sorted()[n]);
  }

  /// Return whether an event acts after another one of its neuron. Simultaneous arrivals act last;
  /// a refractory period ends after the spike before it and before the next spike.
  static bool acts_later(const Event& event, const Event& other) {
    if (event.time != other.time) return event.time > other.time;
    const bool is_arrival = event.synapse >= 0, other_is_arrival = other.synapse >= 0;
    if (is_arrival || other_is_arrival) return is_arrival && !other_is_arrival;
    return event.cause != other.cause ? event.cause > other.cause : event.synapse < other.synapse;
  }

  void propagate(Part& part, const Event& event) {
    const Index neuron = event.target;
    flow_back(neuron, event.time);
    if (event.synapse == -1) return propagate_spike(neuron, event.cause);
    if (event.synapse == -2) return propagate_release(part, neuron, event.cause);
    Costate& costate = costates_[neuron];
    const TimeConstants& taus = tiles_.taus(neuron);
    const double weight = event.weight;
    by_weight_[event.synapse] += T(costate.j);
    const double time_gradient = weight * (costate.j * taus.synaptic - costate.v * taus.gain);
    if (with_taus_) {
      costate.by_mem += weight * costate.j_mem;
      costate.by_syn += weight * costate.j_syn;
    }
    if (event.cause >= 0) {
      part.by_spike[event.cause] += time_gradient;
      by_delay_[event.synapse] += time_gradient;
    } else if (!part.by_time.empty()) {
      part.by_time[-1 - event.cause] += time_gradient;
    }
  }

  void flow_back(Index neuron, double time) {
    Costate& costate = costates_[neuron];
    const double duration = std::max(costate.time - time, 0.0);
    costate.time = std::min(costate.time, time);
    if (duration == 0) return;
    const TimeConstants& taus = tiles_.taus(neuron);
    const Flow flow = flow_over(taus, duration);
    if (with_taus_) {
      const FlowDerivatives by_tau = flow_derivatives(taus, duration, flow);
      costate.j_mem = costate.v_mem * flow.k + costate.j_mem * flow.es + costate.v * by_tau.k_mem;
      costate.j_syn = costate.j_syn * flow.es + costate.v * by_tau.k_syn + costate.j * by_tau.es_syn;
      costate.v_mem = costate.v_mem * flow.em + costate.v * by_tau.em_mem;
    }
    costate.j = costate.v * flow.k + costate.j * flow.es;
    costate.v *= flow.em;
  }

  void propagate_spike(Index neuron, Index spike) {
    Costate& costate = costates_[neuron];
    const Index slot = slots_[spike];
    const Index offset = (sample_ * population_.neurons + neuron) * options_.max_spikes + slot;
    const bool is_recorded = slot < options_.max_spikes;
    double drive = cotangents_.train[sample_ * train_.events + spike];
    for (const Part& part : parts_) drive += part.by_spike[spike];
    if (is_recorded) drive += cotangents_.spikes[offset];
    const bool fired_at_start =
        tiles_.starts_above(neuron) && is_recorded && spikes_.time[offset] == 0;
    const double slope = log_.slope[sample_ * log_.steps + SliceLog::slope(spike)];
    costate.v = propagate_through_spike(tiles_, options_, neuron, slope, drive, costate.v,
                                        costate.v_mem, fired_at_start, parameter_gradients_);
  }

  void propagate_release(Part& part, Index neuron, Index spike) {
    Costate& costate = costates_[neuron];
    if (parameter_gradients_) {
      parameter_gradient(kReset, neuron) += costate.v;
      parameter_gradient(kTauMem, neuron) += tiles_.v_reset(neuron) * costate.v_mem;
    }
    part.by_spike[spike] -=
        costate.v * log_.slope[sample_ * log_.steps + SliceLog::slope_after(spike)];
    costate.v = costate.v_mem = 0;
  }

  void add_initial_state() {
    for (Index n = 0; n < population_.neurons; ++n) {
      flow_back(n, 0);
      add_initial_gradients(tiles_, options_, n, costates_[n], parameter_gradients_);
    }
  }

  const Population<T>& population_;
  const Options& options_;
  const Feedback<T>& feedback_;
  const SortedArrivals<T>& sorted_;
  const SlicePlan<T>& plan_;
  const PopulationTiles<T>& tiles_;
  const Spikes<T>& spikes_;
  const SpikeTrain<T>& train_;
  const EventLog<T>& log_;
  const Cotangents<T>& cotangents_;
  bool with_taus_;
  std::vector<Costate> costates_;
  Array<double> by_delay_;            // for each synapse
  std::vector<Part> parts_;
  std::vector<std::int32_t> slots_;   // for each spike, its number among those of its neuron
  Index sample_ = 0, spike_count_ = 0, spike_ = 0, arrival_ = 0;  // not yet in the bins
  T* by_weight_ = nullptr;
  double* parameter_gradients_ = nullptr;
};

}  // namespace native
