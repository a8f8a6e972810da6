// Simulation of a recurrently connected group of neurons, event by event, and its gradient
// (jaxsnn/event/forward/recurrent.py and adjoint/recurrent_adjoint.py).
//
// Because spikes feed back into the group, the neurons cannot be simulated one after the other: all
// of them advance together from event to event. An event is an arrival from outside, a delayed
// arrival, the end of a refractory period, or a spike. The state is stored as structure of arrays,
// padded to full SIMD vectors:
//
//     v          (lanes,)   membrane potential
//     j          (lanes,)   synaptic current
//     threshold  (lanes,)   inf during the refractory period
//
// For each event the forward pass (`GroupForward`)
//
// 1. sweeps over all neurons once: it advances them to the current event, adds the row of weights
//    that arrives there, and marks those that may cross the threshold before the next event, by an
//    upper bound on v (`look_ahead`);
// 2. solves for the crossing times of the marked neurons, the neuron with the lowest bound first,
//    and skips neurons whose bound is later than the earliest crossing found so far
//    (`find_first_crossings`);
// 3. if there is a crossing, makes it the next event: the neuron fires, is reset, and its row of
//    weights is added to all neurons (`fire`). These steps are repeated for the remaining time.
//
//     outside    |                 |                       |
//     events  ---+--------x--------+---o----x---x----------+--->  time
//                       spike     delayed arrival or release
//
// Spikes that reach few neurons need no sweep. The state is then "frozen": v and j of all neurons
// stay those of the last look-ahead. A neuron that receives a weight or is reset gets the v and j
// at that earlier time from which it would flow to its present state, and only such neurons are
// checked for a crossing again (`add_row_frozen`).
//
// During its refractory period a neuron flows like the others, but its threshold is inf, so v does
// not matter. At the end v is set to v_reset.
//
// Every event is written to an `EventLog` (batch, steps). The backward pass (`GroupBackward`) runs
// through the log in reverse, with the costates of all neurons: flow back, add them to the gradient
// of the row that arrived, and apply the jump of a spike.

#pragma once

#include "slices.h"

namespace native {

// ---- forward pass

/// List with fixed capacity.
template <class Item>
class BoundedList {
 public:
  explicit BoundedList(Index capacity) : items_(capacity) {}
  Item* begin() { return items_.data(); }
  Item* end() { return items_.data() + size_; }
  const Item* begin() const { return items_.data(); }
  const Item* end() const { return items_.data() + size_; }
  const Item& front() const { return items_[0]; }
  const Item& back() const { return items_[size_ - 1]; }
  Item& operator[](Index n) { return items_[n]; }
  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  void clear() { size_ = 0; }
  void push_back(const Item& item) { items_[size_++] = item; }
  void pop_back() { --size_; }

 private:
  Array<Item> items_;
  Index size_ = 0;
};

/// `kBoxes`: an arrival opens or closes a box, and j is the sum of the open boxes.
template <class T, bool kBoxes>
class GroupForward {
  using V = Vector<T>;
  using TimeStep = typename PopulationTiles<T>::TimeStep;
  static constexpr int kLanes = kWidth<T>;
  static constexpr Index kVectorsPerMask = 4;  // vectors that share a 64-bit mask
  // keeps a lower bound of a time valid despite rounding
  static constexpr double kBoundFactor = 1 - 8 * rounding_of(T());

 public:
  GroupForward(const Population<T>& population, const Options& options,
               const Intervals<T>& intervals, const Feedback<T>& feedback,
               const DelayedRows<T>& delayed_rows, const PopulationTiles<T>& tiles,
               const DenseRows<T>& table, const SparseRows<T>& sparse, const T* box_tolerance,
               const Spikes<T>& spikes, const SpikeTrain<T>& train, const EventLog<T>& log)
      : population_(population),
        options_(options),
        intervals_(intervals),
        feedback_(feedback),
        delayed_rows_(delayed_rows),
        tiles_(tiles),
        table_(table),
        sparse_(sparse),
        box_tolerance_(box_tolerance),
        spikes_(spikes),
        train_(train),
        log_(log),
        lanes_(tiles.padded()),
        state_(3 * lanes_),
        boxes_(kBoxes ? 2 * lanes_ : 0, T(0)),
        window_ends_(tiles.uniform() ? 0 : tiles.vectors()),
        crossing_masks_(tiles.vectors() + kVectorsPerMask, 0),
        sparse_sum_(tiles.padded(), T(0)),
        pending_(table.zeros()),
        first_crossings_(lanes_),
        candidates_(lanes_) {}

  /// Simulate one sample.
  void run(Index sample) {
    start_sample(sample);
    Index interval = 0;
    const Index arrivals = intervals_.used(sample);
    const Index max_spikes = 16 * (population_.arrivals + train_.events + 1);
    const auto edges = intervals_.edges(sample);
    const auto rows = intervals_.rows(sample);
    const bool has_steps = tiles_.uniform();
    const Steps<T> steps = has_steps ? intervals_.steps(sample) : Steps<T>();
    for (;;) {
      const bool has_arrival = interval < arrivals;
      double until = edges[interval + 1];
      const bool is_queued = queue_.acts_before(T(until), !has_arrival);
      if (is_queued) {
        until = queue_.next().due;
        if (T(until) <= T(now_)) until = now_;
      }
      const bool is_entire_interval = has_steps && !is_queued && now_ == edges[interval];
      if (advance(until, is_entire_interval ? steps[interval] : Step<T>(), is_entire_interval)) {
        if (spike_count_ > max_spikes) break;  // far more than the results can hold
        continue;
      }
      now_ = std::max(now_, until);
      if (is_queued) {
        process_queued(queue_.pop());
        continue;
      }
      if (!has_arrival) break;
      const Index row = rows[++interval];
      add_row(row);
      log_event(row, T(1));
      prefetch(rows.at_clamped(interval + 1));  // the next row is often not in the cache
    }
    log_.used[sample_] = std::int32_t(std::min(log_length_, log_.steps));
    train_.total[sample_] =
        std::int32_t(std::min<Index>(spike_count_, std::numeric_limits<std::int32_t>::max()));
  }

 private:
  void prefetch(Index row) const {
    if (sparse_.is_sparse(row)) return sparse_.prefetch(row);
    table_.prefetch(row);
  }

  T* v() { return state_.data(); }
  T* j() { return state_.data() + lanes_; }
  T* threshold() { return state_.data() + 2 * lanes_; }
  T& v(Index neuron) { return v()[neuron]; }
  T& j(Index neuron) { return j()[neuron]; }
  T& threshold(Index neuron) { return threshold()[neuron]; }

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
    std::fill_n(log_.wait + sample * log_.steps, log_.steps, T(0));
    std::fill_n(log_.row + sample * log_.steps, log_.steps, std::int32_t(population_.rows));
    std::fill_n(log_.slope + sample * log_.steps, log_.steps, T(1));
    if (log_.origin) std::fill_n(log_.origin + sample * log_.steps, log_.steps, -1);
    queue_.clear();
    now_ = logged_time_ = 0;
    max_window_ = std::numeric_limits<double>::infinity();
    log_length_ = spike_count_ = 0;
    firing_now_.clear();
    clear_pending();
    for (Index n = 0; n < tiles_.padded(); ++n) {
      const auto& tile = tiles_.tile(n / kLanes);
      const int lane = n % kLanes;
      v(n) = T(tile.v_start[lane]);
      j(n) = T(tile.j_start[lane]);
      if constexpr (kBoxes) {
        boxes_[n] = T(0);
        boxes_[lanes_ + n] = j(n);
      }
      threshold(n) = T(tile.fires_at[lane]);
      if (tile.starts_above[lane] && lane < tile.count) firing_now_.push_back(n);
    }
  }

  /// A neuron that may cross in the window, and a lower bound of its crossing time, counted from
  /// the look-ahead; inf: it does not cross in the window.
  struct Candidate {
    T bound;
    std::int32_t neuron;
  };

  struct CrossingNeuron {
    Index neuron;
    Flow flow;  // from now to the crossing
  };

  /// Advance to `until`, or to the next spike if one comes earlier. Return whether a neuron fired.
  ///
  /// `step`: coefficients for the time until then, if `step_is_known`.
  bool advance(double until, const Step<T>& step, bool step_is_known) {
    if (!firing_now_.empty()) {
      catch_up();
      const Index neuron = firing_now_.front();
      firing_now_.erase(firing_now_.begin());
      fire(neuron, v(neuron), j(neuron));
      return true;
    }
    if (!(until > now_)) return false;
    if (frozen_ && until < window_end_) unfreeze();
    double wait;
    for (;;) {
      if (!frozen_) {
        const double window = until - now_;
        const bool is_cut = window > max_window_;
        look_ahead(step_is_known && !is_cut
                       ? TimeStep{window, step, {}}
                       : tiles_.time_step(is_cut ? max_window_ : window, false));
        window_end_ = is_cut ? now_ + max_window_ : until;
      }
      wait = find_first_crossings();
      update_max_window(wait, window_.t);
      if (!first_crossings_.empty()) break;
      if (window_end_ < until) {
        // Continue from the same state instead of advancing it: each step adds a rounding error.
        unfreeze();
        continue;
      }
      advance_to_window_end();
      return false;
    }
    const CrossingNeuron first_crossing = first_crossings_.front();
    const auto [v_now, j_now] = state_now(first_crossing.neuron);
    advance_to_spike(wait, first_crossing);
    // Neurons that cross at the same time fire one after the other, in the order of their numbers.
    if (first_crossings_.size() > 1) catch_up();
    for (std::size_t n = 1; n < first_crossings_.size(); ++n) {
      const Index neuron_then = first_crossings_[n].neuron;
      v(neuron_then) = std::max(v(neuron_then), threshold(neuron_then));
      firing_now_.push_back(neuron_then);
    }
    prefetch_next(first_crossing.neuron);
    fire(first_crossing.neuron, v_now * first_crossing.flow.em + j_now * first_crossing.flow.k,
         j_now * first_crossing.flow.es);
    return true;
  }

  /// Advance to a spike. The state stays frozen if the spike reaches few neurons.
  void advance_to_spike(double wait, const CrossingNeuron& crossing) {
    now_ += wait;
    flow_since_look_ = compose(flow_since_look_, crossing.flow);
    constexpr double kMinDecay = 0.5;  // minimum em and es: edits of a frozen state divide by them
    frozen_ = has_few_targets(crossing.neuron) && first_crossings_.size() == 1 &&
              max_window_ >= window_.t && flow_since_look_.em > kMinDecay &&
              flow_since_look_.es > kMinDecay;
    if (!frozen_) unfreeze();
  }

  /// Return whether the state can stay frozen when this neuron fires.
  bool has_few_targets(Index neuron) const {
    const Index row = feedback_.first_spike_row(population_) + neuron;
    return !kBoxes && tiles_.uniform() && (!feedback_.immediate || sparse_.is_sparse(row));
  }

  /// End the frozen state: from now on the state lags behind the current time, until the next
  /// sweep.
  void unfreeze() {
    frozen_ = false;
    has_lag_ = now_ > look_time_;
    const double time = now_ - look_time_;
    if (has_lag_)
      lag_ = tiles_.uniform() ? TimeStep{time,
                                         {T(flow_since_look_.em), T(flow_since_look_.es),
                                          T(flow_since_look_.k), T(0)},
                                         {}}
                              : tiles_.time_step(time, false);
  }

  /// Choose the length of the next window. If many neurons fire before the next arrival, looking
  /// ahead over the entire time would mark all of them again after each spike.
  void update_max_window(double wait, double window) {
    // A frozen state keeps its candidates after a spike, so a longer list does not cost much.
    const std::size_t max_candidates =
        !first_crossings_.empty() && has_few_targets(first_crossings_.front().neuron) ? 16 : 3;
    const bool is_crowded = candidates_.size() > max_candidates && !first_crossings_.empty();
    max_window_ =
        is_crowded ? std::max(3 * wait, window / 16) : std::max(4 * max_window_, 4 * window);
  }

  // ---- all neurons

  /// Advance all neurons to the current time and add the pending row.
  void catch_up() {
    if (frozen_) unfreeze();
    if (!has_lag_ && pending_ == table_.zeros()) return;
    if (has_lag_)
      tiles_.uniform() ? sweep<true, true, true, false>({}) : sweep<false, true, true, false>({});
    else
      sweep<true, true, false, false>({});
    clear_pending();
  }

  /// Advance all neurons to the current time and mark those that may cross in a window ahead. With
  /// different time constants a second sweep is cheaper than computing both sets of coefficients in
  /// one.
  void look_ahead(const TimeStep& window) {
    if (!tiles_.uniform()) catch_up();
    if (tiles_.uniform()) {
      if (tiles_.positive_thresholds())
        has_lag_ ? sweep<true, true, true, true>(window) : sweep<true, true, false, true>(window);
      else
        has_lag_ ? sweep<true, false, true, true>(window) : sweep<true, false, false, true>(window);
    } else {
      tiles_.positive_thresholds() ? sweep<false, true, false, true>(window)
                                   : sweep<false, false, false, true>(window);
    }
    // The sweep read v before these assignments: correct the marks of these neurons.
    for (const auto& [neuron, v_now] : deferred_v_) {
      const bool may_cross_now = may_cross(window.step, v_now, j(neuron), threshold(neuron));
      std::uint16_t& mask = crossing_masks_[neuron / kLanes];
      mask = (mask & ~(1u << neuron % kLanes)) | unsigned(may_cross_now) << neuron % kLanes;
    }
    clear_pending();
    window_ = window;
    look_time_ = now_;
    flow_since_look_ = {1, 1, 0};
    collect_candidates();
  }

  /// Sweep over all neurons: advance to the current time, add the pending row, look ahead.
  // Local copies of the members: the compiler must assume that vector stores change members, and
  // would reload them for every vector.
  template <bool kUniform, bool kPositive, bool kHasLag, bool kLookAhead>
  void sweep(const TimeStep& window) {
    const Index vectors = tiles_.vectors();
    const T* const pending = pending_;
    T *const all_v = v(), *const all_j = j();
    [[maybe_unused]] T* const all_low = boxes_.data();
    const T* const all_thresholds = threshold();
    auto* const window_ends = window_ends_.data();
    std::uint16_t* const crossing_masks = crossing_masks_.data();
    V em, es, k, bound, em_window, es_window, k_window, bound_window;
    if constexpr (kUniform && kHasLag)
      tiles_.template coefficients<true>(lag_, 0, em, es, k, bound);
    if constexpr (kUniform && kLookAhead)
      tiles_.template coefficients<true>(window, 0, em_window, es_window, k_window, bound_window);
    const auto advance_vector = [&](Index q) __attribute__((always_inline)) -> unsigned {
      const Index offset = q * kLanes;
      V v = load<T>(all_v + offset), j = load<T>(all_j + offset);
      if constexpr (kHasLag) {
        if constexpr (!kUniform) tiles_.template coefficients<false>(lag_, q, em, es, k, bound);
        v = v * em + j * k;
        j = j * es;
        store<T>(all_v + offset, v);
      }
      if constexpr (kBoxes) {
        V low = load<T>(all_low + offset);
        update_box_sum<T>(j, low, load<T>(pending + offset), load<T>(all_low + lanes_ + offset),
                          load<T>(box_tolerance_ + offset));
        store<T>(all_low + offset, low);
      } else {
        j += load<T>(pending + offset);
      }
      store<T>(all_j + offset, j);
      if constexpr (!kLookAhead) return 0;
      if constexpr (!kUniform)
        tiles_.template coefficients<false>(window, q, em_window, es_window, k_window,
                                            bound_window);
      const V zero = {}, rest = v * em_window, drive = kPositive ? j : (j > zero ? j : zero);
      if constexpr (!kUniform) {
        store<T>(window_ends[q].v, rest + j * k_window);
        store<T>(window_ends[q].j, j * es_window);
      }
      return at_least(rest + drive * bound_window, load<T>(all_thresholds + offset));
    };
    for (Index first = 0; first < vectors; first += kVectorsPerMask) {
      std::uint64_t masks = 0;
      if (first + kVectorsPerMask <= vectors)
        for (Index vector = 0; vector < kVectorsPerMask; ++vector)
          masks |= std::uint64_t(advance_vector(first + vector)) << 16 * vector;
      else
        for (Index vector = 0; first + vector < vectors; ++vector)
          masks |= std::uint64_t(advance_vector(first + vector)) << 16 * vector;
      if constexpr (kLookAhead) std::memcpy(crossing_masks + first, &masks, sizeof(masks));
    }
  }

  /// Mark the state as current: no lag and nothing pending.
  void clear_pending() {
    has_lag_ = frozen_ = false;
    if (pending_ == sparse_sum_.data()) std::fill_n(sparse_sum_.data(), sparse_sum_.size(), T(0));
    pending_ = table_.zeros();
    for (const auto& [neuron, v_now] : deferred_v_) v(neuron) = v_now;
    deferred_v_.clear();
  }

  /// Advance all neurons to the end of a window without spikes.
  void advance_to_window_end() {
    frozen_ = false;
    if (tiles_.uniform()) {
      lag_ = window_;
      has_lag_ = true;
      return;
    }
    for (Index q = 0; q < tiles_.vectors(); ++q) {
      std::copy_n(window_ends_[q].v, kLanes, v() + q * kLanes);
      std::copy_n(window_ends_[q].j, kLanes, j() + q * kLanes);
    }
  }

  // ---- threshold crossings

  /// Return whether a neuron may cross in a window, with the bound that the sweep uses.
  template <bool kPositive = false>
  static bool may_cross(const Step<T>& window, T v, T j, T threshold) {
    const T drive = kPositive || j > T(0) ? j : T(0);
    return v * window.em + drive * window.bound >= threshold;
  }

  /// Find the first crossing in the window; return the time until then. `first_crossings_` are the
  /// neurons that cross at that time, in the order of their numbers.
  double find_first_crossings() {
    constexpr double kInfinite = std::numeric_limits<double>::infinity();
    first_crossings_.clear();
    const double elapsed = now_ - look_time_;
    double first_wait = kInfinite;
    if (candidates_.size() > 1) {
      const auto less = [](const Candidate& a, const Candidate& b) { return a.bound < b.bound; };
      std::iter_swap(candidates_.begin(),
                     std::min_element(candidates_.begin(), candidates_.end(), less));
    }
    for (Candidate& candidate : candidates_) {
      const bool is_excluded = candidate.bound == std::numeric_limits<T>::infinity();
      if (is_excluded || candidate.bound > first_wait + elapsed) continue;
      const Crossing next = crossing(candidate.neuron);
      if (next.wait < first_wait) first_crossings_.clear();
      if (next.wait <= first_wait && next.wait < kInfinite) {
        first_wait = next.wait;
        first_crossings_.push_back({candidate.neuron, next.flow});
      }
      candidate.bound = T((elapsed + next.wait) * kBoundFactor);
    }
    if (first_crossings_.size() > 1)
      std::sort(
          first_crossings_.begin(), first_crossings_.end(),
          [](const CrossingNeuron& a, const CrossingNeuron& b) { return a.neuron < b.neuron; });
    return first_wait;
  }

  /// Collect the neurons that the sweep has marked.
  void collect_candidates() {
    candidates_.clear();
    for (Index first = 0; first < tiles_.vectors(); first += kVectorsPerMask) {
      std::uint64_t masks;
      std::memcpy(&masks, crossing_masks_.data() + first, sizeof(masks));
      while (masks) {
        const int vector = __builtin_ctzll(masks) / 16;
        add_candidates(first + vector, unsigned(masks >> 16 * vector) & 0xffffu);
        masks &= ~(std::uint64_t(0xffff) << 16 * vector);
      }
    }
  }

  void add_candidates(Index q, unsigned mask) {
    T waits[kLanes];
    store<T>(waits, min_waits(q));
    for (; mask; mask &= mask - 1) {
      const int lane = __builtin_ctz(mask);
      add_candidate(q * kLanes + lane, waits[lane]);
    }
  }

  void add_candidate(Index neuron, T bound) {
    candidates_.push_back({bound, std::int32_t(neuron)});
  }

  void remove_candidate(Index neuron) {
    for (Candidate& candidate : candidates_)
      if (candidate.neuron == neuron) {
        candidate = candidates_.back();
        return candidates_.pop_back();
      }
  }

  /// Prefetch the row of the neuron that is likely to fire next.
  void prefetch_next(Index firing) const {
    if (!feedback_.immediate) return;
    Candidate best{std::numeric_limits<T>::infinity(), std::int32_t(firing)};
    for (const Candidate& candidate : candidates_)
      if (candidate.neuron != firing && candidate.bound < best.bound) best = candidate;
    if (best.neuron != firing) prefetch(feedback_.first_spike_row(population_) + best.neuron);
  }

  /// Return lower bounds of the crossing times, counted from the look-ahead, for a vector of
  /// neurons; 0 where no bound is available.
  V min_waits(Index q) {
    const V zero = {}, infinite = zero + std::numeric_limits<T>::infinity();
    const Index offset = q * kLanes;
    const V v = load<T>(this->v() + offset), threshold = load<T>(this->threshold() + offset);
    V j = load<T>(this->j() + offset);
    j = j > zero ? j : zero;
    const V leak = load<T>(tiles_.leak_rates() + offset);
    const V wait = (threshold - v) / ((j - v) * leak) * T(kBoundFactor);
    return (v < threshold) & (j > threshold) & (wait < infinite) ? wait : zero;
  }

  /// Return the lower bound for one neuron.
  T min_wait(Index neuron) { return min_waits(neuron / kLanes)[neuron % kLanes]; }

  /// Return v and j of a neuron at the current time.
  std::pair<T, T> state_now(Index neuron) {
    const T v_look = v(neuron), j_look = j(neuron);
    if (!(now_ > look_time_)) return {v_look, j_look};
    return {T(v_look * flow_since_look_.em + j_look * flow_since_look_.k),
            T(j_look * flow_since_look_.es)};
  }

  /// Return the time until a neuron crosses; inf if it does not within the window.
  Crossing crossing(Index neuron) {
    const TimeConstants& taus = tiles_.taus(neuron);
    const auto [v_now, j_now] = state_now(neuron);
    const double threshold = tiles_.threshold(neuron);
    if (v_now >= threshold) return {0, {1, 1, 0}};
    T v_end, j_end;
    if (tiles_.uniform()) {
      v_end = v(neuron) * window_.step.em + j(neuron) * window_.step.k;
      j_end = j(neuron) * window_.step.es;
    } else {
      v_end = window_ends_[neuron / kLanes].v[neuron % kLanes];
      j_end = window_ends_[neuron / kLanes].j[neuron % kLanes];
    }
    constexpr double kTiny = double(std::numeric_limits<T>::min()) / rounding_of(T());
    const bool crosses = v_end >= threshold || (has_peak(taus, v_now, j_now, v_end, j_end, kTiny) &&
                                                peak_reaches(taus, v_now, j_now, threshold));
    if (!crosses) return {std::numeric_limits<double>::infinity(), {}};
    return find_crossing(taus, v_now, j_now, threshold, window_.t - (now_ - look_time_),
                         v_end >= threshold, tolerance_of(T()));
  }

  // ---- events

  /// Let a neuron with state (v, j) fire now, and deliver or schedule its weights.
  void fire(Index neuron, double v_now, double j_now) {
    const double v_threshold = tiles_.threshold(neuron);
    const T slope = T(tiles_.taus(neuron).rate(v_threshold, j_now));
    std::int32_t& count = spikes_.count[sample_ * population_.neurons + neuron];
    if (count < options_.max_spikes) {
      const Index offset = (sample_ * population_.neurons + neuron) * options_.max_spikes + count;
      spikes_.time[offset] = T(now_);
      spikes_.slope[offset] = slope;
    }
    ++count;
    if (spike_count_ < train_.events) {
      train_.time[sample_ * train_.events + spike_count_] = T(now_);
      train_.neuron[sample_ * train_.events + spike_count_] = std::int32_t(neuron);
    }
    ++spike_count_;
    const T refractory = feedback_.refractory ? feedback_.refractory[neuron] : T(0);
    double reset = tiles_.v_reset(neuron);
    if (options_.subtract && !(refractory > 0)) reset += std::max(v_now - v_threshold, 0.0);
    if (options_.once || refractory > 0)
      threshold(neuron) = std::numeric_limits<T>::infinity();
    else if (T(reset) >= threshold(neuron))
      firing_now_.insert(firing_now_.begin(), neuron);
    set_v(neuron, T(reset));
    const Index row = feedback_.first_spike_row(population_) + neuron;
    if (feedback_.immediate) add_row(row);
    log_event(row, slope);
    if (refractory > 0 && !options_.once)
      queue_.push(now_ + refractory, -1 - neuron, spike_count_ - 1);
    delayed_rows_.for_each(neuron, [&](Index row_number) {
      queue_.push(now_ + feedback_.delay[row_number], row_number, spike_count_ - 1);
    });
  }

  /// Set v of a neuron at the current time.
  void set_v(Index neuron, T v_now) {
    if (frozen_) {
      v(neuron) = T((v_now - j(neuron) * flow_since_look_.k) / flow_since_look_.em);
      remove_candidate(neuron);
      if (may_cross(window_.step, v(neuron), j(neuron), threshold(neuron)))
        add_candidate(neuron, min_wait(neuron));
    } else if (has_lag_) {
      deferred_v_.push_back({neuron, v_now});
    } else {
      v(neuron) = v_now;
    }
  }

  /// Process an event from the queue at the current time.
  void process_queued(const typename EventQueue<T>::QueuedEvent& event) {
    if (event.is_release()) {
      const Index neuron = -1 - event.number;
      const double reset = tiles_.v_reset(neuron);
      catch_up();
      v(neuron) = T(reset);
      threshold(neuron) = T(tiles_.threshold(neuron));
      if (v(neuron) >= threshold(neuron)) firing_now_.push_back(neuron);
      const T slope = T(tiles_.taus(neuron).rate(reset, j(neuron)));
      log_event(event.number, slope, event.spike);
    } else {
      const Index row = feedback_.first_delayed_row(population_) + event.number;
      add_row(row);
      log_event(row, T(1), event.spike);
    }
  }

  /// Add a row of weights at the current time; dense rows are added by the next sweep.
  void add_row(Index row) {
    const bool sparse = sparse_.is_sparse(row);
    if (frozen_ && sparse) return add_row_frozen(row);
    if (frozen_) unfreeze();
    // Boxes are added one by one: after rounding a sum of rows, some boxes would never close.
    const bool is_summed = !kBoxes && sparse && pending_ == sparse_sum_.data();
    if (pending_ != table_.zeros() && !is_summed) catch_up();
    if (!sparse) {
      pending_ = table_[row];
      return;
    }
    T* const sparse_sum = sparse_sum_.data();
    const auto add_weight = [=](Index neuron, T weight) { sparse_sum[neuron] += weight; };
    sparse_.for_each(row, add_weight, add_weight);
    pending_ = sparse_sum;
  }

  /// Add a sparse row to the frozen state: change v and j at the look-ahead accordingly.
  void add_row_frozen(Index row) {
    tiles_.positive_thresholds() ? add_row_frozen<true>(row) : add_row_frozen<false>(row);
  }

  template <bool kPositive>
  void add_row_frozen(Index row) {
    const T j_per_weight = T(1 / flow_since_look_.es),
            v_per_weight = T(-flow_since_look_.k / (flow_since_look_.es * flow_since_look_.em));
    // Local copies: the compiler must assume that stores change members, and would reload them.
    const Step<T> window = window_.step;
    const Index lanes = lanes_;
    T* const all = state_.data();
    const auto raise = [=](Index neuron, T weight) __attribute__((always_inline)) {
      T* const neuron_state = all + neuron;
      const T v = neuron_state[0] += weight * v_per_weight,
              j = neuron_state[lanes] += weight * j_per_weight;
      if (__builtin_expect(may_cross<kPositive>(window, v, j, neuron_state[2 * lanes]), 0)) {
        remove_candidate(neuron);
        add_candidate(neuron, min_wait(neuron));
      }
    };
    // A negative weight lowers v, which cannot make a crossing earlier.
    const auto lower = [=](Index neuron, T weight) __attribute__((always_inline)) {
      T* const neuron_state = all + neuron;
      neuron_state[0] += weight * v_per_weight;
      neuron_state[lanes] += weight * j_per_weight;
    };
    sparse_.for_each(row, raise, lower);
  }

  void log_event(Index row, T slope, Index origin = -1) {
    if (log_length_ < log_.steps) {
      const Index offset = sample_ * log_.steps + log_length_;
      if (log_.origin) log_.origin[offset] = std::int32_t(origin);
      log_.wait[offset] = T(now_ - logged_time_);
      log_.row[offset] = std::int32_t(row);
      log_.slope[offset] = slope;
    }
    logged_time_ = now_;
    ++log_length_;
  }

  const Population<T>& population_;
  const Options& options_;
  const Intervals<T>& intervals_;
  const Feedback<T>& feedback_;
  const DelayedRows<T>& delayed_rows_;
  const PopulationTiles<T>& tiles_;
  const DenseRows<T>& table_;
  const SparseRows<T>& sparse_;
  const T* const box_tolerance_;  // for each neuron, see `compute_box_tolerances`
  const Spikes<T>& spikes_;
  const SpikeTrain<T>& train_;
  const EventLog<T>& log_;
  EventQueue<T> queue_;
  Index lanes_;
  Array<T> state_;  // (3, lanes): v, j, threshold; at the current time, or earlier by `lag_`
  Array<T> boxes_;  // (2, lanes) with boxes: low part of j, and j without open boxes
  struct WindowEnd {
    T v[kLanes], j[kLanes];
  };
  Array<WindowEnd> window_ends_;  // with different time constants: the state at the window's end
  Array<std::uint16_t> crossing_masks_;    // for each vector, the lanes that may cross
  TimeStep lag_ = {};                      // step from the state to the current time
  bool has_lag_ = false;                   // whether the state lags behind
  bool frozen_ = false;                    // the state is that of the last look-ahead
  TimeStep window_ = {};                   // time step of the last look-ahead
  double look_time_ = 0, window_end_ = 0;  // time of the last look-ahead, and end of its window
  Flow flow_since_look_ = {};              // from the last look-ahead to the current time
  Array<T> sparse_sum_;                    // sum of the sparse rows that arrive now
  const T* pending_;                       // row of weights not yet added to j
  struct DeferredVoltage {
    Index neuron;
    T v;
  };
  std::vector<DeferredVoltage> deferred_v_;      // v to assign after the next sweep
  std::vector<Index> firing_now_;                // neurons that fire at the current time
  BoundedList<CrossingNeuron> first_crossings_;  // neurons that cross first
  BoundedList<Candidate> candidates_;
  Index sample_ = 0, log_length_ = 0, spike_count_ = 0;
  double now_ = 0, logged_time_ = 0;
  double max_window_ = 0;  // maximum length of a window, seconds
};

/// Simulate a group and write its spikes and log. Return 0, or NaN if a weight that is not in the
/// table is not finite.
template <class T>
T group_forward(const Population<T>& population, const Options& options,
                const Feedback<T>& feedback, const SortedArrivals<T>& sorted,
                const Spikes<T>& spikes, const SpikeTrain<T>& train, const EventLog<T>& log) {
  Intervals<T> intervals(population, sorted);
  const PopulationTiles<T> tiles(population, intervals.uniform(), intervals.taus());
  const bool has_boxes = intervals.taus().ratio == Ratio::kConstantCurrent;
  if (SlicePlan<T>::applies(population, feedback) && !has_boxes) {
    const SlicePlan<T> plan(population, feedback);
    ThreadPool::shared().run(population.batch, options.threads, [&](Index sample) {
      SliceForward<T>(population, options, feedback, sorted, plan, tiles, spikes, train, log)
          .run(sample);
    });
    return zero_if_finite(population.weight, feedback.list_begin[population.rows]);
  }
  intervals.compute_steps(options.threads, false);
  const SparseRows<T> sparse(population, feedback, options.threads);
  const DenseRows<T> table(population, feedback, &sparse, options.threads);
  const DelayedRows<T> delayed_rows(feedback, population.neurons);
  const Index events = population.arrivals + train.events * (1 + delayed_rows.max_deliveries());
  if (feedback.list_begin && log.steps > 0 && log.steps < events) {
    const auto [shortest, longest] = SlicePlan<T>::delay_range(feedback);
    char message[320];
    std::snprintf(message, sizeof(message),
                  "delays from %g to %g s are too different for slices of time as long as the "
                  "shortest delay, and a log of %lld events is too long: lengthen the shortest "
                  "delays, or pass a smaller max_events",
                  double(shortest), double(longest), static_cast<long long>(events));
    throw std::invalid_argument(message);
  }
  const auto run = [&](auto with_boxes, const T* box_tolerance) {
    ThreadPool::shared().run(population.batch, options.threads, [&](Index sample) {
      GroupForward<T, decltype(with_boxes)::value> forward(population, options, intervals, feedback,
                                                           delayed_rows, tiles, table, sparse,
                                                           box_tolerance, spikes, train, log);
      forward.run(sample);
    });
  };
  if (has_boxes) {
    if (feedback.list_begin) throw std::invalid_argument("sparse weights of rectangular pulses");
    Array<T> box_tolerance(tiles.padded(), T(0));
    compute_box_tolerances(population.weight, feedback.rows_in_table(population),
                           int(population.neurons), box_tolerance.data());
    run(std::true_type(), box_tolerance.data());
  } else {
    run(std::false_type(), nullptr);
  }
  if (feedback.list_begin)
    return zero_if_finite(population.weight, feedback.list_begin[population.rows]);
  return sparse.zero_if_finite() + table.zero_if_finite();
}

// ---- backward pass

template <class T>
class GroupBackward {
  using V = Vector<T>;
  static constexpr int kLanes = kWidth<T>;

 public:
  GroupBackward(const Population<T>& population, const Options& options,
                const Feedback<T>& feedback, const PopulationTiles<T>& tiles,
                const DenseRows<T>& table, const SparseRows<T>& sparse, const Spikes<T>& spikes,
                const SpikeTrain<T>& train, const EventLog<T>& log, const Cotangents<T>& cotangents,
                bool with_taus)
      : population_(population),
        options_(options),
        feedback_(feedback),
        tiles_(tiles),
        table_(table),
        sparse_(sparse),
        spikes_(spikes),
        train_(train),
        log_(log),
        cotangents_(cotangents),
        with_taus_(with_taus),
        lanes_(tiles.padded()),
        state_(7 * lanes_),
        discarded_row_(lanes_, T(0)),
        spikes_before_(population.neurons) {}

  /// Add the gradients of a sample: `by_weight` (rows + 1, lanes), `by_time` (arrivals,) in sorted
  /// order or null, `parameter_gradients` (fields, lanes) or null, `by_delay` (delayed,).
  void run(Index sample, Index arrivals, T* by_weight, T* by_time, double* parameter_gradients,
           double* by_delay) {
    sample_ = sample;
    parameter_gradients_ = parameter_gradients;
    std::fill_n(state_.data(), state_.size(), T(0));
    std::copy_n(spikes_.count + sample * population_.neurons, population_.neurons,
                spikes_before_.data());
    Index remaining_spikes = std::max<Index>(train_.total[sample], 0);
    Index arrival = arrivals;
    const Index steps = std::clamp<Index>(log_.used[sample], 0, log_.steps);
    const Index first_spike_row = feedback_.first_spike_row(population_);
    const Index first_delayed_row = feedback_.first_delayed_row(population_);
    delayed_cotangents_.assign(log_.origin ? std::min(remaining_spikes, steps) : 0, 0.0);
    double next_wait = 0;
    for (Index step = steps - 1; step >= 0; --step) {
      const Index offset = sample * log_.steps + step, row = log_.row[offset];
      const std::int32_t origin = log_.origin ? log_.origin[offset] : -1;
      const bool is_spike = row >= first_spike_row && row < first_spike_row + population_.neurons;
      const bool is_delayed =
          origin >= 0 && row >= first_delayed_row && row - first_delayed_row < feedback_.delayed;
      const bool needs_time = is_spike || is_delayed || by_time;
      const Index table_row = valid_row(row);
      // The preceding step is processed next: prefetch its row, which is often not in the cache.
      const Index previous_row = valid_row(step > 0 ? log_.row[offset - 1] : -1);
      next_gradient_row_ =
          feedback_.list_begin ? discarded_row_.data() : by_weight + previous_row * lanes_;
      if (sparse_.is_sparse(previous_row)) sparse_.prefetch(previous_row);
      const double time_gradient = propagate_back(next_wait, table_row, by_weight, needs_time);
      next_wait = log_.wait[offset];
      if (is_spike) {
        --remaining_spikes;
        propagate_spike(row - first_spike_row, log_.slope[offset], remaining_spikes,
                        time_gradient + delayed_cotangent(remaining_spikes));
      } else if (is_delayed) {
        by_delay[row - first_delayed_row] += time_gradient;
        add_delayed_cotangent(origin, time_gradient);
      } else if (row < 0) {
        if (row >= -population_.neurons)
          add_delayed_cotangent(origin, propagate_release(-1 - row, log_.slope[offset]));
      } else if (arrival > 0) {
        --arrival;
        if (by_time) by_time[arrival] = T(time_gradient);
      }
    }
    propagate_flow(next_wait);
    if (parameter_gradients_) add_initial_state();
  }

 private:
  /// Return the row of an arrival, or the row of zeros for other events.
  Index valid_row(Index row) const {
    return row < 0 || row > population_.rows ? population_.rows : row;
  }
  T* p_v() { return state_.data(); }
  T* p_j() { return state_.data() + lanes_; }
  T* v_mem() { return state_.data() + 2 * lanes_; }
  T* j_mem() { return state_.data() + 3 * lanes_; }
  T* j_syn() { return state_.data() + 4 * lanes_; }
  T* by_mem() { return state_.data() + 5 * lanes_; }
  T* by_syn() { return state_.data() + 6 * lanes_; }
  double& parameter_gradient(Field field, Index neuron) {
    return parameter_gradients_[field * lanes_ + neuron];
  }

  /// Return the part of a spike's dL/dt that comes from the delayed events that it caused.
  double delayed_cotangent(Index spike) const {
    return spike >= 0 && spike < Index(delayed_cotangents_.size()) ? delayed_cotangents_[spike]
                                                                   : 0.0;
  }
  void add_delayed_cotangent(Index spike, double cotangent) {
    if (spike >= 0 && spike < Index(delayed_cotangents_.size()))
      delayed_cotangents_[spike] += cotangent;
  }

  void propagate_flow(double time) { propagate_back(time, population_.rows, nullptr, false); }

  /// Propagate the costates back over a time and through the arrival at its start: add to the
  /// arrival's row of the gradient, and return dL/dt of the arrival.
  double propagate_back(double time, Index row, T* by_weight, bool needs_time) {
    const std::true_type yes;
    const std::false_type no;
    if (feedback_.list_begin) {
      // There is no table of gradients: the costates advance with the row of zeros.
      if (row < population_.rows) {
        propagate_flow(time);
        return propagate_list(row, by_weight);
      }
      by_weight = nullptr;
    }
    if (with_taus_) {
      if (tiles_.uniform()) return step_back(yes, yes, yes, time, row, by_weight);
      return step_back(yes, no, yes, time, row, by_weight);
    }
    if (!tiles_.uniform()) return step_back(yes, no, no, time, row, by_weight);
    if (needs_time && sparse_.is_sparse(row)) {
      step_back(no, yes, no, time, row, by_weight);
      const T *const all_v = p_v(), *const all_j = p_j();
      const T gain = tiles_.gains()[0], synaptic = tiles_.synaptic_rates()[0];
      return sparse_.sum(
          row, [&](Index n, T weight) { return weight * (all_j[n] * synaptic - all_v[n] * gain); });
    }
    return needs_time ? step_back(yes, yes, no, time, row, by_weight)
                      : step_back(no, yes, no, time, row, by_weight);
  }

  /// Add the gradients of the synapses of a row at its arrival; return dL/dt of the arrival.
  double propagate_list(Index row, T* by_weight) {
    const T *const all_v = p_v(), *const all_j = p_j();
    const T *const gains = tiles_.gains(), *const synaptic_rates = tiles_.synaptic_rates();
    double time_gradient = 0;
    for (Index n = feedback_.list_begin[row]; n < feedback_.list_begin[row + 1]; ++n) {
      const Index target = feedback_.list_target[n];
      const T weight = population_.weight[n], j = all_j[target];
      by_weight[n] += j;
      time_gradient += weight * (j * synaptic_rates[target] - all_v[target] * gains[target]);
      if (with_taus_) {
        by_mem()[target] += weight * j_mem()[target];
        by_syn()[target] += weight * j_syn()[target];
      }
    }
    return time_gradient;
  }

  template <class WithTime, class Uniform, class WithTaus>
  double step_back(WithTime, Uniform, WithTaus, double time, Index row, T* by_weight) {
    constexpr bool kWithTime = WithTime::value, kUniform = Uniform::value,
                   kWithTaus = WithTaus::value;
    const auto time_step = tiles_.time_step(time, kWithTaus);
    const T* weights = table_[row];
    // without an arrival, the gradient row goes to a buffer that is never read
    T* gradient_row = by_weight ? by_weight + row * lanes_ : discarded_row_.data();
    T *const all_v = p_v(), *const all_j = p_j();
    const T* const next_gradient_row = next_gradient_row_;
    const T *const gains = tiles_.gains(), *const synaptic_rates = tiles_.synaptic_rates();
    const Index vectors = tiles_.vectors();
    V time_gradient = {}, em, es, k, bound, gain, synaptic;
    if constexpr (kUniform) tiles_.template coefficients<true>(time_step, 0, em, es, k, bound);
    if constexpr (kUniform && kWithTime) {
      gain = broadcast(gains[0]);
      synaptic = broadcast(synaptic_rates[0]);
    }
    for (Index q = 0; q < vectors; ++q) {
      const Index offset = q * kLanes;
      V v = load<T>(all_v + offset), j = load<T>(all_j + offset);
      __builtin_prefetch(next_gradient_row + offset, 1);
      if constexpr (!kUniform) tiles_.template coefficients<false>(time_step, q, em, es, k, bound);
      if constexpr (kWithTaus) {
        V em_mem, k_mem, es_syn, k_syn;
        tiles_.template derivatives<kUniform>(time_step, q, em_mem, k_mem, es_syn, k_syn);
        const V v_mem_later = load<T>(v_mem() + offset), j_mem_later = load<T>(j_mem() + offset);
        const V j_syn_later = load<T>(j_syn() + offset), w = load<T>(weights + offset);
        const V j_by_mem = v_mem_later * k + j_mem_later * es + v * k_mem;
        const V j_by_syn = j_syn_later * es + v * k_syn + j * es_syn;
        store<T>(v_mem() + offset, v_mem_later * em + v * em_mem);
        store<T>(j_mem() + offset, j_by_mem);
        store<T>(j_syn() + offset, j_by_syn);
        store<T>(by_mem() + offset, load<T>(by_mem() + offset) + w * j_by_mem);
        store<T>(by_syn() + offset, load<T>(by_syn() + offset) + w * j_by_syn);
      }
      j = v * k + j * es;
      v = v * em;
      store<T>(all_v + offset, v);
      store<T>(all_j + offset, j);
      store<T>(gradient_row + offset, load<T>(gradient_row + offset) + j);
      if constexpr (kWithTime) {
        if constexpr (!kUniform) {
          gain = load<T>(gains + offset);
          synaptic = load<T>(synaptic_rates + offset);
        }
        time_gradient += load<T>(weights + offset) * (j * synaptic - v * gain);
      }
    }
    return kWithTime ? double(horizontal_sum(time_gradient)) : 0;
  }

  /// Propagate back through a spike; `by_delayed`: see `delayed_cotangent`.
  void propagate_spike(Index neuron, double slope, Index spike_number, double by_delayed) {
    const Index slot = --spikes_before_[neuron];
    double drive = by_delayed;
    const Index offset = (sample_ * population_.neurons + neuron) * options_.max_spikes + slot;
    const bool is_recorded = slot >= 0 && slot < options_.max_spikes;
    if (is_recorded) drive += cotangents_.spikes[offset];
    if (spike_number >= 0 && spike_number < train_.events)
      drive += cotangents_.train[sample_ * train_.events + spike_number];
    const bool fired_at_start =
        tiles_.starts_above(neuron) && is_recorded && spikes_.time[offset] == 0;
    p_v()[neuron] =
        T(propagate_through_spike(tiles_, options_, neuron, slope, drive, p_v()[neuron],
                                  v_mem()[neuron], fired_at_start, parameter_gradients_));
  }

  /// Propagate back through the end of a refractory period, where v was at v_reset; return dL/dt of
  /// that end.
  double propagate_release(Index neuron, double slope) {
    const double p = p_v()[neuron];
    if (parameter_gradients_) {
      parameter_gradient(kReset, neuron) += p;
      parameter_gradient(kTauMem, neuron) += tiles_.v_reset(neuron) * v_mem()[neuron];
    }
    p_v()[neuron] = v_mem()[neuron] = T(0);
    return std::isfinite(slope) ? -p * slope : 0.0;
  }

  void add_initial_state() {
    for (Index n = 0; n < population_.neurons; ++n) {
      const NeuronCostate costate{p_v()[n],   p_j()[n],    v_mem()[n], j_mem()[n],
                                  j_syn()[n], by_mem()[n], by_syn()[n]};
      add_initial_gradients(tiles_, options_, n, costate, parameter_gradients_);
    }
  }

  const Population<T>& population_;
  const Options& options_;
  const Feedback<T>& feedback_;
  const PopulationTiles<T>& tiles_;
  const DenseRows<T>& table_;
  const SparseRows<T>& sparse_;
  const Spikes<T>& spikes_;
  const SpikeTrain<T>& train_;
  const EventLog<T>& log_;
  const Cotangents<T>& cotangents_;
  bool with_taus_;
  Index lanes_, sample_ = 0;
  Array<T> state_, discarded_row_;
  std::vector<std::int32_t> spikes_before_;  // number of spikes of each neuron before the step
  std::vector<double> delayed_cotangents_;   // for each spike, see `delayed_cotangent`
  double* parameter_gradients_ = nullptr;
  const T* next_gradient_row_ = nullptr;  // gradient row of the preceding step
};

/// Compute the gradients of a group; `by_delay`: (delayed,).
template <class T>
void group_backward(const Population<T>& population, const Options& options,
                    const Feedback<T>& feedback, const SortedArrivals<T>& sorted,
                    const Spikes<T>& spikes, const SpikeTrain<T>& train, const EventLog<T>& log,
                    const Cotangents<T>& cotangents, const Gradients<T>& gradients, T* by_delay) {
  const Index synapses = feedback.list_begin ? feedback.list_begin[population.rows] : -1;
  zero_gradients(population, gradients, population.batch * population.arrivals, synapses);
  std::fill_n(by_delay, feedback.delayed, T(0));
  if (population.batch == 0 || population.neurons == 0) return;
  const Intervals<T> intervals(population, sorted);
  const PopulationTiles<T> tiles(population, intervals.uniform(), intervals.taus());
  PartialGradients<T> partial_gradients(population, tiles.padded(), options.threads, gradients,
                                        synapses);
  Array<double> delay_sums(partial_gradients.chunks() * feedback.delayed, 0.0);
  // Call run(sample, by_weight, by_time, parameters, by_delay) for each sample.
  const auto propagate = [&](auto&& run) {
    partial_gradients.run([&](Index sample, T* by_weight, double* parameters, Index chunk) {
      std::vector<T> by_time(gradients.time ? population.arrivals : 0);
      run(sample, by_weight, gradients.time ? by_time.data() : nullptr, parameters,
          delay_sums.data() + chunk * feedback.delayed);
      if (!gradients.time) return;
      for (Index n = 0; n < intervals.used(sample); ++n) {
        const Index slot = sorted.slot[sample * population.arrivals + n];
        if (slot >= 0 && slot < population.arrivals)
          gradients.time[sample * population.arrivals + slot] = by_time[n];
      }
    });
  };
  if (log.used[0] == SliceLog::kIsSliced) {
    const SlicePlan<T> plan(population, feedback);
    propagate([&](Index sample, auto... sums) {
      SliceBackward<T>(population, options, feedback, sorted, plan, tiles, spikes, train, log,
                       cotangents, gradients.with_taus())
          .run(sample, sums...);
    });
  } else {
    const SparseRows<T> sparse(population, feedback, options.threads);
    const bool skips_sparse = tiles.uniform() && !gradients.with_taus();
    const DenseRows<T> table(population, feedback, skips_sparse ? &sparse : nullptr,
                             options.threads);
    propagate([&](Index sample, auto... sums) {
      GroupBackward<T>(population, options, feedback, tiles, table, sparse, spikes, train, log,
                       cotangents, gradients.with_taus())
          .run(sample, intervals.used(sample), sums...);
    });
  }
  for (Index n = 0; n < feedback.delayed; ++n) {
    double sum = 0;
    for (Index chunk = 0; chunk < partial_gradients.chunks(); ++chunk)
      sum += delay_sums[chunk * feedback.delayed + n];
    by_delay[n] = T(sum);
  }
}

}  // namespace native
