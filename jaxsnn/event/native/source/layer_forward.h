// Forward pass of a population without recurrent connections (jaxsnn/event/forward/layer.py).
//
// Without recurrence the arrivals of a sample are known in advance, and neurons are independent.
// The kernel therefore takes one tile of neurons (tiles.h) of one sample at a time, keeps its state
// in registers, and walks through the intervals between arrivals:
//
//                    interval 0        interval 1        ...     interval used
//     (v, j) start --- flow --- + w[row[0]] --- flow --- ... --- flow --- t_end
//                       |                        |                |
//                    crossing?                crossing?        crossing?
//
// In each interval:
//
// 1. Add the row of weights that arrives at its start to j (or to v, or to the open boxes).
// 2. Compute v and j at its end from the closed-form flow. If all neurons have the same time
//    constants, the coefficients were computed once per interval for the entire population.
// 3. Find the lanes that may cross the threshold with a cheap upper bound on v, which assumes that
//    a positive j does not decay. Most intervals have no such lane.
// 4. Simulate these lanes exactly and in double precision: solve for the crossing, record the
//    spike, reset, and repeat until the interval ends (`simulate_interval`). A single lane is
//    simulated by itself; several lanes can share vectors of doubles (lanes.h).
//
// Threads work on pairs of a tile and a chunk of the batch (`WorkUnits`):
//
//     spikes (batch, neurons, max_spikes):  batch   ->  chunks
//                                           neurons ->  tiles of kLanes

#pragma once

#include "lanes.h"
#include "tiles.h"

namespace native {

/// One tile of neurons of one sample, through all arrivals.
///
/// `kJumps`: an arrival increments v instead of j. `kBoxes`: an arrival opens or closes a box, and
/// j is the sum of the open boxes.
template <class T, int kVectors, bool kUniform, bool kJumps, bool kBoxes>
class TileForward {
  using V = Vector<T>;
  using Bits = std::uint64_t;
  static constexpr int kLanes = Tile<T, kVectors>::kLanes;

 public:
  TileForward(const Population<T>& population, const Options& options,
              const Intervals<T>& intervals, const Spikes<T>& spikes)
      : population_(population),
        options_(options),
        intervals_(intervals),
        spikes_(spikes),
        closed_form_(kUniform && !kJumps && options.refractory == 0 &&
                     intervals.taus().ratio == Ratio::kMemTwiceSyn) {}

  /// `box_tolerance`: for each lane, see `compute_box_tolerances`; read only with kBoxes.
  void run(const Tile<T, kVectors>& tile, const T* table, const T* box_tolerance, Index sample,
           Index first_neuron) {
    sample_ = sample;
    edges_ = intervals_.edges(sample);
    first_neuron_ = first_neuron;
    tile_ = &tile;
    refractory_ = 0;
    alive_ = tile.count == 64 ? ~Bits(0) : (Bits(1) << tile.count) - 1;
    neuron_index_ = population_.neuron_index(sample);
    fill(spikes_.time, options_.max_spikes, std::numeric_limits<T>::infinity());
    fill(spikes_.slope, options_.max_spikes, T(1));
    if (options_.spike_sets_v()) fill(spikes_.slope_after, options_.max_spikes, T(0));
    if (kJumps) {
      fill(spikes_.cause, options_.max_spikes, 0);
      std::fill_n(cause_, kLanes, 0);
    }
    fill(spikes_.count, 1, 0);
    std::memcpy(threshold_, tile.threshold, sizeof(threshold_));
    tile.positive ? walk<true>(table, box_tolerance) : walk<false>(table, box_tolerance);
  }

 private:
  /// Fill an array (batch, neurons, values_per_neuron) for the tile's neurons.
  template <class Value>
  void fill(Value* values, Index values_per_neuron, Value value) {
    if (neuron_index_.step == 1) {
      std::fill_n(values + neuron_index_[first_neuron_] * values_per_neuron,
                  tile_->count * values_per_neuron, value);
      return;
    }
    for (int lane = 0; lane < tile_->count; ++lane)
      std::fill_n(values + neuron_index_[first_neuron_ + lane] * values_per_neuron,
                  values_per_neuron, value);
  }

  template <bool kPositive>
  void walk(const T* table, const T* box_tolerance) {
    const Tile<T, kVectors>& tile = *tile_;
    V v[kVectors], j[kVectors], threshold[kVectors];
    [[maybe_unused]] V low[kVectors] = {}, rest_j[kVectors], box_tolerance_j[kVectors];
    for (int lane = 0; lane < kLanes; ++lane) {
      reinterpret_cast<T*>(v)[lane] = T(tile.v_start[lane]);
      reinterpret_cast<T*>(j)[lane] = T(tile.j_start[lane]);
    }
    std::memcpy(threshold, threshold_, sizeof(threshold));
    if constexpr (kBoxes) {
      std::memcpy(rest_j, j, sizeof(j));
      std::memcpy(box_tolerance_j, box_tolerance, sizeof(box_tolerance_j));
    }
    const Index used = intervals_.used(sample_);
    const auto rows = intervals_.rows(sample_);
    const Steps<T> steps = kUniform ? intervals_.steps(sample_) : Steps<T>();
    Bits above_at_start = 0;
    for (int lane = 0; lane < tile.count; ++lane)
      above_at_start |= Bits(tile.starts_above[lane]) << lane;
    for (Index interval = 0; interval <= used; ++interval) {
      const T* weights = table + rows[interval] * kLanes;
      prefetch_row<T, kVectors>(table + rows.at_clamped(interval + kPrefetchDistance) * kLanes);
      V v_now[kVectors], v_end[kVectors], j_now[kVectors], j_end[kVectors];
      Bits candidate_lanes = 0;
      for (int q = 0; q < kVectors; ++q) {
        V arriving, em, es, k, bound;
        std::memcpy(&arriving, weights + q * kWidth<T>, sizeof(arriving));
        coefficients(tile, steps, interval, q, em, es, k, bound);
        v_now[q] = kJumps ? v[q] + arriving : v[q];
        j_now[q] = j[q];
        if constexpr (kBoxes)
          update_box_sum<T>(j_now[q], low[q], arriving, rest_j[q], box_tolerance_j[q]);
        else if constexpr (!kJumps)
          j_now[q] += arriving;
        const V rest = v_now[q] * em;
        v_end[q] = rest + j_now[q] * k;
        if constexpr (kJumps) {  // v is monotone between arrivals
          candidate_lanes |=
              Bits(at_least(v_now[q], threshold[q]) | at_least(v_end[q], threshold[q]))
              << (q * kWidth<T>);
        } else {
          const V zero = {};
          const V drive = kPositive ? j_now[q] : (j_now[q] > zero ? j_now[q] : zero);
          candidate_lanes |= Bits(at_least(rest + drive * bound, threshold[q])) << (q * kWidth<T>);
        }
        j_end[q] = j_now[q] * es;
      }
      if (__builtin_expect((candidate_lanes | refractory_ | above_at_start) != 0, 0)) {
        alignas(64) T at_start[3][kLanes], at_end[2][kLanes];
        std::memcpy(at_start[0], v_now, sizeof(v));
        std::memcpy(at_start[1], j_now, sizeof(j));
        if constexpr (kJumps) std::memcpy(at_start[2], v, sizeof(v));
        std::memcpy(at_end[0], v_end, sizeof(v));
        std::memcpy(at_end[1], j_end, sizeof(j));
        if (!kJumps && __builtin_popcountll(candidate_lanes) > 2)
          candidate_lanes &= may_cross(at_start, at_end);
        const Bits alive = alive_;
        Bits active = (candidate_lanes | refractory_ | above_at_start) & alive_;
        if (closed_form_ && __builtin_popcountll(active) >= kMinSelected) {
          while (active) simulate_interval(LaneSelection(active), interval, at_start, at_end);
          std::memcpy(v_end, at_end[0], sizeof(v));
          std::memcpy(j_end, at_end[1], sizeof(j));
        }
        for (; active; active &= active - 1) {
          const int lane = __builtin_ctzll(active);
          if (!kJumps ||
              update_cause(lane, interval, at_start[2][lane], at_start[0][lane], at_end[0][lane]))
            simulate_interval(lane, interval, at_start[0][lane], at_start[1][lane], at_end[0][lane],
                              at_end[1][lane]);
          // Update the vectors in registers. Writing single numbers to memory and then reading
          // vectors there would stall (no store forwarding).
          for (int q = 0; q < kVectors; ++q) {
            set_lane<T>(v_end[q], lane - q * kWidth<T>, at_end[0][lane]);
            set_lane<T>(j_end[q], lane - q * kWidth<T>, at_end[1][lane]);
          }
        }
        above_at_start = 0;
        if (!alive_) return;
        if (alive_ != alive) std::memcpy(threshold, threshold_, sizeof(threshold));
      }
      for (int q = 0; q < kVectors; ++q) {
        v[q] = v_end[q];
        j[q] = j_end[q];
      }
    }
  }

  void coefficients(const Tile<T, kVectors>& tile, const Steps<T>& steps, Index interval, int q,
                    V& em, V& es, V& k, V& bound) const {
    if constexpr (kUniform) {
      const Step<T> step = steps[interval];
      em = broadcast(step.em);
      es = broadcast(step.es);
      k = broadcast(step.k);
      bound = broadcast(step.bound);
    } else {
      const double t = edges_[interval + 1] - edges_[interval];
      tile.compute_step(q, t, em, es, k, bound);
    }
  }

  /// Return the lanes that may cross, by the state at both ends of the interval: v is at or above
  /// the threshold at either end, or may have a maximum in between that reaches the threshold (see
  /// `Tile::peak_factor`). The slack covers rounding, so that no lane is missed for which `crosses`
  /// is true.
  __attribute__((noinline)) Bits may_cross(const T at_start[3][kLanes],
                                           const T at_end[2][kLanes]) const {
    constexpr T kSlack = T(64 * rounding_of(T())), kTiny = 64 * std::numeric_limits<T>::min();
    Bits lanes = 0;
    for (int q = 0; q < kVectors; ++q) {
      const int offset = q * kWidth<T>;
      const V v = load<T>(at_start[0] + offset), j = load<T>(at_start[1] + offset);
      const V v_end = load<T>(at_end[0] + offset);
      const V threshold = load<T>(threshold_ + offset), v_plus_j = v + j, zero = {};
      const V scale = (v < zero ? -v : v) + j;
      lanes |= Bits(at_least(v_end, threshold) | at_least(v, threshold) |
                    (at_least(v_end + kSlack * scale, load<T>(at_end[1] + offset)) &
                     at_least(v_plus_j * v_plus_j + kTiny, tile_->peak_factor * j * threshold)))
               << offset;
    }
    return lanes;
  }

  bool is_above(int lane, double v) const {
    return population_.strict ? v > tile_->fires_at[lane] : v >= tile_->fires_at[lane];
  }

  /// Update the cause of a neuron's next spike when an arrival increments v. Return whether time
  /// passes before the next arrival; if not, the neuron cannot fire before the last of the
  /// simultaneous arrivals.
  bool update_cause(int lane, Index interval, double v_before, double v, T& v_end) {
    const double threshold = tile_->fires_at[lane];
    if (refractory_ >> lane & 1) {
      v_end = T(tile_->v_reset[lane]);
    } else if (interval > 0) {
      const bool is_new = (is_above(lane, v) && !is_above(lane, v_before)) ||
                          (v >= threshold && !(v_before >= threshold));
      cause_[lane] = is_new ? std::int32_t(interval) : v >= threshold ? cause_[lane] : 0;
    }
    return edges_[interval + 1] > edges_[interval];
  }

  /// Simulate one neuron through an interval with all its spikes.
  void simulate_interval(int lane, Index interval, double v, double j, T& v_end, T& j_end) {
    const TimeConstants& taus = tile_->taus[lane];
    const double threshold = tile_->fires_at[lane], edge = edges_[interval + 1];
    double time = edges_[interval];
    const Index offset = neuron_index_[first_neuron_ + lane] * options_.max_spikes;
    std::int32_t& count = spikes_.count[neuron_index_[first_neuron_ + lane]];
    double v_last = v_end, j_last = j_end;
    if (refractory_ >> lane & 1) {
      // v stays at v_reset until the refractory period or the interval ends.
      const double hold_time = std::min(release_time_[lane] - time, edge - time);
      const bool is_released = is_released_before(release_time_[lane], edge);
      const double free_time = std::max(edge - time - hold_time, 0.0);
      j *= std::exp(-hold_time * taus.synaptic);
      v = tile_->v_reset[lane];
      time += hold_time;
      if (is_released) {
        refractory_ &= ~(Bits(1) << lane);
        record_slope_after(lane, offset, count, v, j);
      }
      const Flow flow = flow_over(taus, free_time);
      v_last = v * flow.em + j * flow.k;
      j_last = j * flow.es;
    }
    bool fires = kJumps ? crosses_with_jumps(lane, v, j, v_last)
                        : v >= threshold || crosses(taus, v, j, v_last, j_last, threshold);
    // The flow to the interval's end does not depend on the crossing: compute it first, so that the
    // processor can overlap the two computations.
    Flow to_end;
    if (!kJumps && fires) to_end = flow_over(taus, std::max(edge - time, 0.0));
    while (fires) {
      const double time_left = std::max(edge - time, 0.0);
      const auto [wait, to_spike] = v >= threshold
                                        ? Crossing{0.0, {1, 1, 0}}
                                        : find_crossing(taus, v, j, threshold, time_left,
                                                        T(v_last) >= threshold, tolerance_of(T()));
      const double v_at_spike = v * to_spike.em + j * to_spike.k;
      j *= to_spike.es;
      time = std::min(time + wait, edge);
      if (count < options_.max_spikes) {
        spikes_.time[offset + count] = after_arrival<T>(edges_[interval], wait, time);
        spikes_.slope[offset + count] = T(taus.rate(threshold, j));
        if (kJumps && v >= threshold) {
          spikes_.slope[offset + count] = std::numeric_limits<T>::infinity();
          spikes_.cause[offset + count] = cause_[lane];
        }
      }
      ++count;
      v = tile_->v_reset[lane];
      if (kJumps && options_.refractory == 0 && options_.spike_sets_v())
        record_slope_after(lane, offset, count, v, j);
      const bool finished = options_.once || count >= options_.max_counted;
      if (finished) {
        deactivate(lane);
        break;
      }
      if (options_.refractory > 0) {
        release_time_[lane] = time + options_.refractory;
        const double hold_time = std::min(std::max(edge - time, 0.0), options_.refractory);
        j *= std::exp(-hold_time * taus.synaptic);
        time += hold_time;
        if (!is_released_before(release_time_[lane], edge)) {
          refractory_ |= Bits(1) << lane;
          v_last = v;
          j_last = j;
          break;
        }
        record_slope_after(lane, offset, count, v, j);
      } else if (options_.subtract) {
        v += std::max(v_at_spike - threshold, 0.0);
      }
      const bool use_remaining =
          !kJumps && options_.refractory == 0 && to_spike.es > 0.5 && to_spike.em > 0.5;
      to_end = use_remaining ? remaining_flow(to_end, to_spike)
                             : flow_over(taus, std::max(edge - time, 0.0));
      v_last = v * to_end.em + j * to_end.k;
      j_last = j * to_end.es;
      if (kJumps)
        fires = edge > time && crosses_with_jumps(lane, v, j, v_last);
      else
        fires = crosses(taus, v, j, v_last, j_last, threshold) ||
                (options_.subtract && options_.refractory == 0 && v >= threshold);
    }
    v_end = T(v_last);
    j_end = T(j_last);
  }

  /// Simulate several neurons with tau_mem = 2 tau_syn and no refractory period, one in each lane.
  __attribute__((noinline)) void simulate_interval(const LaneSelection& selection, Index interval,
                                                   const T at_start[3][kLanes],
                                                   T at_end[2][kLanes]) {
    const TimeConstants& taus = intervals_.taus();
    const DoubleVector zero = {};
    const DoubleVector threshold = selection.gather(tile_->fires_at, tile_->shared_levels);
    const DoubleVector v_reset = selection.gather(tile_->v_reset, tile_->shared_levels);
    DoubleVector v = selection.gather(at_start[0]), j = selection.gather(at_start[1]);
    DoubleVector v_last = selection.gather(at_end[0]), j_last = selection.gather(at_end[1]);
    const DoubleVector end_time = zero + edges_[interval + 1];
    DoubleVector now = zero + edges_[interval], time_left = maximum(end_time - now, zero);
    const auto crosses = [&] {
      constexpr double kTiny = double(std::numeric_limits<T>::min()) / rounding_of(T());
      return bits_of((rounded(v_last, T()) >= threshold) |
                     peak_reaches_double(taus, v, j, v_last, j_last, threshold, kTiny));
    };
    unsigned fires = selection.mask & (bits_of(v >= threshold) | crosses());
    FlowLanes to_end;  // flow from `now` to the interval's end
    if (fires && !options_.once) to_end = flow_over(taus, time_left);
    while (fires) {
      const auto [wait, to_spike] = find_crossing_double(taus, fires, v, j, threshold, time_left);
      const DoubleVector overshoot = maximum(v * to_spike.em + j * to_spike.k - threshold, zero);
      now = minimum(now + wait, end_time);
      j *= to_spike.es;
      v = options_.subtract ? v_reset + overshoot : v_reset;
      fires &= ~record_spikes(selection, fires, edges_[interval], wait, now,
                              (j - threshold) * taus.leak);
      if (!fires) break;
      time_left = maximum(end_time - now, zero);
      const LaneMask use_remaining = (to_spike.es > 0.5) & (to_spike.em > 0.5);
      to_end = select(use_remaining, remaining_flow(to_end, to_spike), flow_over(taus, time_left));
      const LaneMask updated = mask_of(fires);
      v_last = updated ? v * to_end.em + j * to_end.k : v_last;
      j_last = updated ? j * to_end.es : j_last;
      fires &= crosses() | (options_.subtract ? bits_of(v >= threshold) : 0);
    }
    if (options_.once) return;  // neurons that fired are inactive: their state no longer matters
    selection.scatter(at_end[0], v_last);
    selection.scatter(at_end[1], j_last);
  }

  /// Record a spike of each firing neuron; return those that are no longer simulated.
  unsigned record_spikes(const LaneSelection& selection, unsigned firing, double interval_start,
                         DoubleVector wait, DoubleVector now, DoubleVector slope) {
    alignas(64) double waits[kDoubleLanes], times[kDoubleLanes], slopes[kDoubleLanes];
    store<double>(waits, wait);
    store<double>(times, now);
    store<double>(slopes, slope);
    unsigned finished = 0;
    for (; firing; firing &= firing - 1) {
      const int n = __builtin_ctz(firing), lane = selection.lane[n];
      const Index neuron = neuron_index_[first_neuron_ + lane];
      std::int32_t& count = spikes_.count[neuron];
      if (count < options_.max_spikes) {
        spikes_.time[neuron * options_.max_spikes + count] =
            after_arrival<T>(interval_start, waits[n], times[n]);
        spikes_.slope[neuron * options_.max_spikes + count] = T(slopes[n]);
      }
      ++count;
      if (options_.once || count >= options_.max_counted) {
        finished |= 1u << n;
        deactivate(lane);
      }
    }
    return finished;
  }

  /// Stop simulating a neuron.
  void deactivate(int lane) {
    threshold_[lane] = std::numeric_limits<T>::infinity();
    alive_ &= ~(Bits(1) << lane);
    refractory_ &= ~(Bits(1) << lane);
  }

  void record_slope_after(int lane, Index offset, std::int32_t count, double v, double j) {
    if (count > 0 && count <= options_.max_spikes)
      spikes_.slope_after[offset + count - 1] = T(tile_->taus[lane].rate(v, j));
  }

  /// Return whether the refractory period ends before an arrival. If arrivals increment v, an
  /// arrival at the end of the period, up to rounding, acts after that end.
  static bool is_released_before(double release_time, double edge) {
    return release_time < edge || (kJumps && T(release_time) <= T(edge));
  }

  /// Return whether v is above the threshold or reaches it on its way to v_end.
  bool crosses_with_jumps(int lane, double v, double j, double v_end) const {
    const double threshold = tile_->fires_at[lane];
    if (is_above(lane, v) || is_above(lane, T(v_end))) return true;
    return v < threshold && T(v_end) >= threshold && tile_->taus[lane].rate(threshold, j) > 0;
  }

  static bool crosses(const TimeConstants& taus, double v, double j, double v_end, double j_end,
                      double threshold) {
    // Use the rounded state: a neuron whose stored v is at the threshold must fire.
    if (T(v_end) >= threshold) return true;
    constexpr double kTiny = double(std::numeric_limits<T>::min()) / rounding_of(T());
    return has_peak(taus, v, j, v_end, j_end, kTiny) && peak_reaches(taus, v, j, threshold);
  }

  const Population<T>& population_;
  const Options& options_;
  const Intervals<T>& intervals_;
  const Spikes<T>& spikes_;
  const bool closed_form_;  // crossings have a closed form
  const Tile<T, kVectors>* tile_ = nullptr;
  alignas(64) T threshold_[kLanes];  // inf for neurons that are no longer simulated
  Index sample_ = 0, first_neuron_ = 0;
  typename Population<T>::NeuronIndex neuron_index_;
  typename Intervals<T>::Edges edges_;
  Bits refractory_ = 0, alive_ = 0;  // lanes in the refractory period; lanes still simulated
  double release_time_[kLanes];      // end of the refractory period
  std::int32_t cause_[kLanes];       // number of the arrival that raised v above the threshold
};

/// Simulate a population and write its spikes. `scratch`: memory of the calling thread, which then
/// does all the work alone; null: the kernel allocates memory and uses all threads.
template <class T>
void layer_forward(const Population<T>& population, const Options& options,
                   const SortedArrivals<T>& sorted, const Spikes<T>& spikes,
                   Scratch<T>* scratch = nullptr) {
  if (population.batch == 0 || population.neurons == 0) return;
  Intervals<T> intervals(population, sorted);
  intervals.compute_steps(options.threads, false, scratch);
  dispatch_tile_width<T>(population.neurons, [&](auto vectors_constant) {
    constexpr int kVectors = decltype(vectors_constant)::value;
    constexpr int kLanes = Tile<T, kVectors>::kLanes;
    const Index tiles = (population.neurons + kLanes - 1) / kLanes;
    const TileCache<T, kVectors> tile_cache(population, intervals);
    // With a constant current, an arrival that changes j opens or closes a box.
    const bool boxes = !options.jumps && intervals.taus().ratio == Ratio::kConstantCurrent;
    Array<T> tables(tiles * (population.rows + 1) * kLanes),
        box_tolerance(boxes ? tiles * kLanes : 0);
    auto tile_table = [&](Index tile) {
      return tables.data() + tile * (population.rows + 1) * kLanes;
    };
    ThreadPool::shared().run(tiles, ThreadPool::useful_threads(options.threads, tables.size()),
                             [&](Index tile) {
                               pack_weights(population, tile * kLanes, kLanes, tile_table(tile));
                               if (boxes)
                                 compute_box_tolerances(tile_table(tile), population.rows, kLanes,
                                                        box_tolerance.data() + tile * kLanes);
                             });
    const Index min_units = scratch ? 1 : std::max<Index>(32, 8 * options.threads);
    const Index chunks = (min_units + tiles - 1) / tiles;
    const WorkUnits units{tiles, std::min(chunks, population.batch), population.batch};
    auto run_unit = [&](auto uniform, auto jumps, auto with_boxes, Index unit) {
      constexpr bool kUniform = decltype(uniform)::value, kJumps = decltype(jumps)::value;
      constexpr bool kBoxes = decltype(with_boxes)::value;
      const Index tile = units.tile(unit), chunk = units.chunk(unit), first = tile * kLanes;
      TileForward<T, kVectors, kUniform, kJumps, kBoxes> forward(population, options, intervals,
                                                                 spikes);
      std::optional<Tile<T, kVectors>> storage;
      for (Index list = units.begin(chunk); list < units.begin(chunk + 1); ++list)
        forward.run(tile_cache.tile(tile, list % population.positions, storage), tile_table(tile),
                    box_tolerance.data() + (boxes ? first : 0), list, first);
    };
    ThreadPool::shared().run(units.size(), options.threads, [&](Index unit) {
      const std::true_type yes;
      const std::false_type no;
      if (options.jumps)
        intervals.uniform() ? run_unit(yes, yes, no, unit) : run_unit(no, yes, no, unit);
      else if (boxes)
        intervals.uniform() ? run_unit(yes, no, yes, unit) : run_unit(no, no, yes, unit);
      else
        intervals.uniform() ? run_unit(yes, no, no, unit) : run_unit(no, no, no, unit);
    });
  });
}

// ---- recorded spikes

/// Compute dv/dt at recorded spikes, assuming that v is at the threshold; arrays (batch, neurons,
/// max_spikes).
///
/// Since v is known, only j is needed. Spikes do not change j, so each neuron's j flows from
/// arrival to arrival.
template <class T>
void recorded_slopes(const Population<T>& population, const Options& options,
                     const SortedArrivals<T>& sorted, const T* time, T* slope) {
  const Intervals<T> intervals(population, sorted);
  const Index neurons = population.neurons, slots = options.max_spikes;
  auto parameter = [&](Field field, Index neuron) {
    return population.parameters[field * neurons + neuron];
  };
  std::vector<TimeConstants> taus(neurons);
  for (Index n = 0; n < neurons; ++n)
    taus[n] = TimeConstants(parameter(kTauMem, n), parameter(kTauSyn, n), rounding_of(T()));
  const std::vector<T> zero_row(neurons);
  struct Spike {
    std::int32_t next;  // linked list of the spikes in an interval
    Index neuron, slot;
  };
  ThreadPool::shared().run(population.batch, options.threads, [&](Index sample) {
    const Index used = intervals.used(sample), first = sample * neurons * slots;
    const auto edges = intervals.edges(sample);
    const auto rows = intervals.rows(sample);
    const T* arrivals = sorted.time + sorted.first(sample);
    std::vector<std::int32_t> first_spike_of(used + 1, -1);
    std::vector<Spike> spikes;
    for (Index n = 0; n < neurons; ++n)
      for (Index slot = n * slots; slot < (n + 1) * slots; ++slot) {
        slope[first + slot] = 1;
        const T time_of_spike = time[first + slot];
        if (!(time_of_spike < std::numeric_limits<T>::infinity())) continue;
        // Simultaneous arrivals act after a spike.
        const Index interval =
            std::lower_bound(arrivals, arrivals + used, time_of_spike) - arrivals;
        spikes.push_back({first_spike_of[interval], n, slot});
        first_spike_of[interval] = std::int32_t(spikes.size() - 1);
      }
    std::vector<double> j(neurons);
    for (Index n = 0; n < neurons; ++n) j[n] = parameter(kCurrent, n);
    for (Index interval = 0; interval <= used; ++interval) {
      if (interval > 0) {
        const double wait = edges[interval] - edges[interval - 1];
        const double common_decay = std::exp(-wait * intervals.taus().synaptic);
        const Index row = rows[interval];
        const T* weights =
            row < population.rows ? population.weight + row * neurons : zero_row.data();
        for (Index n = 0; n < neurons; ++n)
          j[n] = j[n] * (intervals.uniform() ? common_decay : std::exp(-wait * taus[n].synaptic)) +
                 weights[n];
      }
      for (std::int32_t spike_index = first_spike_of[interval]; spike_index >= 0;
           spike_index = spikes[spike_index].next) {
        const auto [next, n, slot] = spikes[spike_index];
        const double wait = time[first + slot] - edges[interval];
        slope[first + slot] =
            T(taus[n].rate(parameter(kThreshold, n), j[n] * std::exp(-wait * taus[n].synaptic)));
      }
    }
  });
}

}  // namespace native
