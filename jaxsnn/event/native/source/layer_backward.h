// Backward pass (EventProp) of a population without recurrent connections
// (jaxsnn/event/adjoint/layer_adjoint.py).
//
// Each neuron carries two costates, p_v = dL/dv and p_j = dL/dj, backwards through the intervals of
// its sample (tiles.h), from the interval of the last spike to time 0:
//
//     time 0                arrival n - 1     arrival n              last spike
//       |------- ... ----------|-- interval n --|------ ... -----------X
//     <- initial state      <- P = F^T P'    <- P'                  <- P = 0
//
// - Within an interval the costates follow the transposed flow, P = F^T P', in all lanes of a tile.
// - An interval that contains spikes is repeated for these neurons in double precision: flow back
//   to the spike, apply its jump (`propagate_spike`), continue (`propagate_interval`).
// - At an arrival, p_j (or p_v, if arrivals increment v) is added to the arrival's row of the
//   weights' gradient, and the derivative with respect to its time is accumulated.
// - For the gradients of the time constants (kWithTaus), the derivatives of the costates with
//   respect to the time constants are propagated, too (v_mem, j_mem, j_syn).
//
// Threads work on pairs of a tile and a chunk of the batch (`WorkUnits`), each with its own table
// of gradients. The tables are summed in a fixed order, so that results do not depend on the number
// of threads:
//
//     per unit (rows + 1, kLanes)  -- sum over chunks -->  gradients.weight (rows, neurons)

#pragma once

#include "lanes.h"
#include "tiles.h"

namespace native {

/// One tile of neurons of one sample, backwards through its arrivals.
template <class T, int kVectors, bool kUniform, bool kWithTaus>
class TileBackward {
  using V = Vector<T>;
  using Bits = std::uint64_t;
  static constexpr int kLanes = Tile<T, kVectors>::kLanes;

 public:
  TileBackward(const Population<T>& population, const Options& options,
               const Intervals<T>& intervals, const SortedArrivals<T>& sorted,
               const ForwardSpikes<T>& spikes)
      : population_(population),
        options_(options),
        intervals_(intervals),
        sorted_(sorted),
        spikes_(spikes) {}

  /// Add to the gradients.
  ///
  /// `by_weight`: (rows + 1, kLanes), like the table; `by_time`: (arrivals,) in sorted order, or
  /// null; `parameter_gradients`: (fields, kLanes), or null.
  void run(const Tile<T, kVectors>& tile, const T* table, Index sample, Index first_neuron,
           T* by_weight, T* by_time, double* parameter_gradients) {
    tile_ = &tile;
    sample_ = sample;
    edges_ = intervals_.edges(sample);
    first_neuron_ = first_neuron;
    neuron_index_ = population_.neuron_index(sample);
    parameter_gradients_ = parameter_gradients;
    vectorised_ =
        kUniform && !kWithTaus && !parameter_gradients && !options_.jumps && !spike_sets_v();
    by_time_ = by_time;
    find_last_events();
    if (last_interval_ < 0) return;  // without spikes all costates are 0
    if (by_time)
      walk<true>(table, by_weight, by_time);
    else
      walk<false>(table, by_weight, by_time);
  }

 private:
  /// Up to this many arrivals are searched linearly, for all neurons at once.
  static constexpr Index kMaxLinearSearch = 24;

  struct Costate {
    double v = 0, j = 0;                     // P
    double v_mem = 0, j_mem = 0, j_syn = 0;  // derivatives of P with respect to the time constants
  };

  /// Find each neuron's last spike and the interval that contains it.
  void find_last_events() {
    const Index used = intervals_.used(sample_), slots = options_.max_spikes;
    pending_lanes_.assign(used + 1, 0);
    last_interval_ = -1;
    Bits fired = 0;
    if (slots == 1 && neuron_index_.step == 1) {
      const T* times = spikes_.time + neuron_index_[first_neuron_];
      std::fill_n(event_slot_, kLanes, 0);
      std::fill_n(event_is_release_, kLanes, false);
      for (int lane = 0; lane < tile_->count; ++lane) {
        event_time_[lane] = times[lane];
        fired |= Bits(times[lane] < std::numeric_limits<T>::infinity()) << lane;
      }
    } else {
      for (int lane = 0; lane < tile_->count; ++lane) {
        const T* times = spikes_.time + neuron_index_[first_neuron_ + lane] * slots;
        Index slot = 0;
        while (slot < slots && times[slot] < std::numeric_limits<T>::infinity()) ++slot;
        if (slot == 0) continue;
        set_next_event(lane, slot - 1, false);
        fired |= Bits(1) << lane;
      }
    }
    alignas(64) std::int64_t intervals[kLanes];
    const bool use_linear_search = used <= kMaxLinearSearch && !options_.jumps;
    if (use_linear_search) count_before_all(used, intervals);
    for (Bits pending = fired; pending; pending &= pending - 1) {
      const int lane = __builtin_ctzll(pending);
      const Index interval = use_linear_search ? intervals[lane] : interval_of(lane, used);
      pending_lanes_[interval] |= Bits(1) << lane;
      last_interval_ = std::max(last_interval_, interval);
    }
  }

  /// Vector form of `count_before` for all neurons of the tile; fast if there are few arrivals.
  void count_before_all(Index used, std::int64_t counts_out[kLanes]) const {
    const T* times = sorted_.time + sorted_.first(sample_);
    LongVector counts[kLanes / kDoubleLanes] = {};
    for (Index n = 0; n < used; ++n)
      for (int q = 0; q < kLanes / kDoubleLanes; ++q)
        counts[q] -= double(times[n]) < load<double>(event_time_ + q * kDoubleLanes);
    std::memcpy(counts_out, counts, sizeof(counts));
  }

  /// Set the neuron's event that the backward pass processes next: a spike, or the end of the
  /// refractory period after that spike.
  void set_next_event(int lane, Index slot, bool is_release) {
    const Index offset = neuron_index_[first_neuron_ + lane] * options_.max_spikes + slot;
    const T time = spikes_.time[offset];
    event_slot_[lane] = std::int32_t(slot);
    event_is_release_[lane] = is_release;
    event_time_[lane] =
        is_release ? rounded_release(double(time) + options_.refractory) : double(time);
    // Prefetch: both values are read when the event is processed.
    __builtin_prefetch(spikes_.slope + offset);
    __builtin_prefetch(spikes_.cotangent + offset);
  }

  /// Return the interval of a neuron's next event, which is at most `last_interval`.
  Index interval_of(int lane, Index last_interval) const {
    const T* times = sorted_.time + sorted_.first(sample_);
    const double time = event_time_[lane];
    const Index offset =
        neuron_index_[first_neuron_ + lane] * options_.max_spikes + event_slot_[lane];
    if (options_.jumps && !event_is_release_[lane] && std::isinf(spikes_.slope[offset]))
      // The simultaneous arrival caused this spike, and acts before it.
      return std::upper_bound(times, times + last_interval, T(time)) - times;
    // Simultaneous arrivals act after a spike.
    return count_before(times, last_interval, time);
  }

  /// Move on to the preceding event of a neuron; return whether it is in the same interval.
  bool advance_event(int lane, Index interval) {
    const Index slot = event_slot_[lane];
    if (event_is_release_[lane])
      set_next_event(lane, slot, false);
    else if (slot == 0)
      return false;
    else
      set_next_event(lane, slot - 1, options_.refractory > 0);
    const Index event_interval = interval_of(lane, interval);
    if (event_interval < interval) pending_lanes_[event_interval] |= Bits(1) << lane;
    return event_interval == interval;
  }

  /// Return the end of a refractory period with the precision at which the forward pass compares it
  /// with arrivals.
  double rounded_release(double time) const { return options_.jumps ? double(T(time)) : time; }

  template <bool kWithTime>
  void walk(const T* table, T* by_weight, T* by_time) {
    const Tile<T, kVectors>& tile = *tile_;
    V p_v[kVectors] = {}, p_j[kVectors] = {};
    V v_mem[kVectors] = {}, j_mem[kVectors] = {}, j_syn[kVectors] = {};  // derivatives of P
    V by_mem[kVectors] = {}, by_syn[kVectors] = {};
    const bool jumps = options_.jumps;
    V leak[kVectors], gain[kVectors], synaptic[kVectors];
    for (int lane = 0; lane < kLanes; ++lane) {
      reinterpret_cast<T*>(leak)[lane] = T(tile.taus[lane].leak);
      reinterpret_cast<T*>(gain)[lane] = T(tile.taus[lane].gain);
      reinterpret_cast<T*>(synaptic)[lane] = T(tile.taus[lane].synaptic);
    }
    std::fill_n(release_v_, kLanes, 0.0);
    std::fill_n(release_v_mem_, kLanes, 0.0);
    const Steps<T> steps = kUniform ? intervals_.steps(sample_) : Steps<T>();
    const StepDerivatives<T>* step_derivatives =
        kUniform && kWithTaus ? intervals_.step_derivatives(sample_) : nullptr;
    const auto rows = intervals_.rows(sample_);
    for (Index interval = last_interval_; interval >= 0; --interval) {
      prefetch_row<T, kVectors>(by_weight + rows.at_clamped(interval - kPrefetchDistance) * kLanes);
      const bool has_events = pending_lanes_[interval] != 0;
      alignas(64) T at_end[5][kLanes];
      if (__builtin_expect(has_events, 0)) {
        std::memcpy(at_end[0], p_v, sizeof(p_v));
        std::memcpy(at_end[1], p_j, sizeof(p_j));
        if constexpr (kWithTaus) {
          std::memcpy(at_end[2], v_mem, sizeof(v_mem));
          std::memcpy(at_end[3], j_mem, sizeof(j_mem));
          std::memcpy(at_end[4], j_syn, sizeof(j_syn));
        }
      }
      // P = F^T P', and dP = F^T dP' + (dF)^T P' with d = d/d(time constant)
      for (int q = 0; q < kVectors; ++q) {
        V em, es, k, bound;
        const double t = kUniform ? 0 : edges_[interval + 1] - edges_[interval];
        if constexpr (kUniform) {
          em = broadcast(steps[interval].em);
          es = broadcast(steps[interval].es);
          k = broadcast(steps[interval].k);
        } else {
          tile.compute_step(q, t, em, es, k, bound);
        }
        if constexpr (kWithTaus) {
          V em_mem, k_mem, es_syn, k_syn;
          if constexpr (kUniform) {
            em_mem = broadcast(step_derivatives[interval].em_mem);
            k_mem = broadcast(step_derivatives[interval].k_mem);
            es_syn = broadcast(step_derivatives[interval].es_syn);
            k_syn = broadcast(step_derivatives[interval].k_syn);
          } else {
            tile.compute_step_derivatives(q, t, em_mem, k_mem, es_syn, k_syn);
          }
          j_mem[q] = v_mem[q] * k + j_mem[q] * es + p_v[q] * k_mem;
          v_mem[q] = v_mem[q] * em + p_v[q] * em_mem;
          j_syn[q] = j_syn[q] * es + p_v[q] * k_syn + p_j[q] * es_syn;
        }
        p_j[q] = p_v[q] * k + p_j[q] * es;
        p_v[q] = p_v[q] * em;
      }
      if (__builtin_expect(has_events, 0)) {
        alignas(64) T at_start[5][kLanes];
        std::memcpy(at_start[0], p_v, sizeof(p_v));
        std::memcpy(at_start[1], p_j, sizeof(p_j));
        if constexpr (kWithTaus) {
          std::memcpy(at_start[2], v_mem, sizeof(v_mem));
          std::memcpy(at_start[3], j_mem, sizeof(j_mem));
          std::memcpy(at_start[4], j_syn, sizeof(j_syn));
        }
        propagate_interval(interval, at_end, at_start);
        std::memcpy(p_v, at_start[0], sizeof(p_v));
        std::memcpy(p_j, at_start[1], sizeof(p_j));
        if constexpr (kWithTaus) {
          std::memcpy(v_mem, at_start[2], sizeof(v_mem));
          std::memcpy(j_mem, at_start[3], sizeof(j_mem));
          std::memcpy(j_syn, at_start[4], sizeof(j_syn));
        }
      }
      if (interval == 0) break;
      // The arrival at the start of the interval adds its row of weights to j (or v): the gradient
      // of the row is the costate there.
      const Index row = rows[interval];
      T* gradient_row = by_weight + row * kLanes;
      [[maybe_unused]] V time_gradient = {};
      for (int q = 0; q < kVectors; ++q) {
        V gradient;
        std::memcpy(&gradient, gradient_row + q * kWidth<T>, sizeof(gradient));
        gradient += jumps ? p_v[q] : p_j[q];
        std::memcpy(gradient_row + q * kWidth<T>, &gradient, sizeof(gradient));
        if constexpr (kWithTime || kWithTaus) {
          V weights;
          std::memcpy(&weights, table + row * kLanes + q * kWidth<T>, sizeof(weights));
          if constexpr (kWithTaus) {
            by_mem[q] += weights * (jumps ? v_mem[q] : j_mem[q]);
            if (!jumps) by_syn[q] += weights * j_syn[q];
          }
          // dL/dt of the arrival: -P . A e W, with x' = A x for the state x = (v, j), and e the
          // unit vector of the quantity that the weights W increment
          if constexpr (kWithTime)
            time_gradient +=
                weights * (jumps ? p_v[q] * leak[q] : p_j[q] * synaptic[q] - p_v[q] * gain[q]);
        }
      }
      if constexpr (kWithTime) by_time[interval - 1] += horizontal_sum(time_gradient);
    }
    if (!parameter_gradients_) return;
    alignas(64) T start[5][kLanes];
    std::memcpy(start[0], p_v, sizeof(p_v));
    std::memcpy(start[1], p_j, sizeof(p_j));
    std::memcpy(start[2], v_mem, sizeof(v_mem));
    std::memcpy(start[3], j_mem, sizeof(j_mem));
    std::memcpy(start[4], j_syn, sizeof(j_syn));
    for (int lane = 0; lane < tile.count; ++lane)
      add_initial_state(
          lane, {start[0][lane], start[1][lane], start[2][lane], start[3][lane], start[4][lane]});
    if constexpr (kWithTaus) {
      alignas(64) T arrival_terms[2][kLanes];
      std::memcpy(arrival_terms[0], by_mem, sizeof(by_mem));
      std::memcpy(arrival_terms[1], by_syn, sizeof(by_syn));
      for (int lane = 0; lane < tile.count; ++lane) {
        parameter_gradient(kTauMem, lane) += arrival_terms[0][lane];
        parameter_gradient(kTauSyn, lane) += arrival_terms[1][lane];
      }
    }
  }

  double& parameter_gradient(Field field, int lane) {
    return parameter_gradients_[field * kLanes + lane];
  }

  bool spike_sets_v() const { return options_.spike_sets_v(); }

  /// Add the gradients of the initial state, from the costates at time 0.
  void add_initial_state(int lane, const Costate& at_start) {
    const bool starts_reset = tile_->starts_above[lane] && !spike_sets_v() && !options_.subtract;
    const double v = starts_reset ? tile_->v_reset[lane] : tile_->v_start[lane];
    parameter_gradient(starts_reset ? kReset : kStart, lane) += at_start.v;
    parameter_gradient(kCurrent, lane) += at_start.j;
    const double j = tile_->j_start[lane];
    parameter_gradient(kTauMem, lane) += v * at_start.v_mem + j * at_start.j_mem;
    parameter_gradient(kTauSyn, lane) += j * at_start.j_syn;
  }

  /// Propagate the lanes that have events in an interval, from its end to its start.
  void propagate_interval(Index interval, const T at_end[5][kLanes], T at_start[5][kLanes]) {
    Bits lanes = std::exchange(pending_lanes_[interval], 0);
    if (vectorised_ && __builtin_popcountll(lanes) >= kMinSelected)
      while (lanes) propagate_interval(LaneSelection(lanes), interval, at_end, at_start);
    for (; lanes; lanes &= lanes - 1)
      propagate_interval(__builtin_ctzll(lanes), interval, at_end, at_start);
  }

  void propagate_interval(int lane, Index interval, const T at_end[5][kLanes],
                          T at_start[5][kLanes]) {
    Costate costate{at_end[0][lane], at_end[1][lane]};
    if constexpr (kWithTaus) {
      costate.v_mem = at_end[2][lane];
      costate.j_mem = at_end[3][lane];
      costate.j_syn = at_end[4][lane];
    }
    double time = edges_[interval + 1];
    do {
      flow_back(lane, costate, time - event_time_[lane]);
      time = event_time_[lane];
      event_is_release_[lane] ? propagate_release(lane, costate)
                              : propagate_spike(lane, event_slot_[lane], costate);
    } while (advance_event(lane, interval));
    flow_back(lane, costate, time - edges_[interval]);
    at_start[0][lane] = T(costate.v);
    at_start[1][lane] = T(costate.j);
    if constexpr (kWithTaus) {
      at_start[2][lane] = T(costate.v_mem);
      at_start[3][lane] = T(costate.j_mem);
      at_start[4][lane] = T(costate.j_syn);
    }
  }

  /// Propagate several neurons at once, one in each lane, if spikes subtract from v and no
  /// parameter needs a gradient.
  __attribute__((noinline)) void propagate_interval(const LaneSelection& selection, Index interval,
                                                    const T at_end[5][kLanes],
                                                    T at_start[5][kLanes]) {
    const Tile<T, kVectors>& tile = *tile_;
    const TimeConstants& taus = intervals_.taus();
    const DoubleVector zero = {};
    const DoubleVector height = selection.gather(tile.fires_at, tile.shared_levels) -
                                selection.gather(tile.v_reset, tile.shared_levels);
    const DoubleVector reset_slope = height * taus.leak,
                       min_slope = options_.min_slope * reset_slope;
    DoubleVector v = selection.gather(at_end[0]), j = selection.gather(at_end[1]);
    DoubleVector time = zero + edges_[interval + 1];
    const auto flow_back_to = [&](DoubleVector earlier_time) {
      const FlowLanes flow = flow_over(taus, maximum(time - earlier_time, zero));
      j = v * flow.k + j * flow.es;
      v *= flow.em;
      time = earlier_time;
    };
    for (unsigned active = selection.mask; active;) {
      alignas(64) double slopes[kDoubleLanes], cotangents[kDoubleLanes] = {};
      std::fill_n(slopes, kDoubleLanes, 1.0);
      unsigned with_slope = active;
      for (unsigned remaining = active; remaining; remaining &= remaining - 1) {
        const int n = __builtin_ctz(remaining), lane = selection.lane[n];
        const Index offset =
            neuron_index_[first_neuron_ + lane] * options_.max_spikes + event_slot_[lane];
        slopes[n] = spikes_.slope[offset];
        cotangents[n] = spikes_.cotangent[offset];
        if (tile.starts_above[lane] && event_slot_[lane] == 0 && event_time_[lane] == 0)
          with_slope &= ~(1u << n);
      }
      const LaneMask is_active = mask_of(active);
      flow_back_to(is_active ? selection.gather(event_time_) : time);
      const DoubleVector drive = load<double>(cotangents) - v * reset_slope;
      v -= mask_of(with_slope) ? drive / maximum(load<double>(slopes), min_slope) : zero;
      for (unsigned remaining = active; remaining; remaining &= remaining - 1) {
        const int n = __builtin_ctz(remaining);
        if (!advance_event(selection.lane[n], interval)) active &= ~(1u << n);
      }
    }
    flow_back_to(zero + edges_[interval]);
    selection.scatter(at_start[0], v);
    selection.scatter(at_start[1], j);
  }

  void flow_back(int lane, Costate& costate, double duration) {
    if (!(duration > 0) || (costate.v == 0 && costate.j == 0)) return;
    const TimeConstants& taus = tile_->taus[lane];
    const Flow flow = flow_over(taus, duration);
    if constexpr (kWithTaus) {
      const FlowDerivatives derivatives = flow_derivatives(taus, duration, flow);
      const double v_mem = costate.v_mem;
      costate.v_mem = v_mem * flow.em + costate.v * derivatives.em_mem;
      costate.j_mem = v_mem * flow.k + costate.j_mem * flow.es + costate.v * derivatives.k_mem;
      costate.j_syn =
          costate.j_syn * flow.es + costate.v * derivatives.k_syn + costate.j * derivatives.es_syn;
    }
    costate.j = costate.v * flow.k + costate.j * flow.es;
    costate.v *= flow.em;
  }

  /// Propagate back through the end of a refractory period, where v starts at v_reset.
  void propagate_release(int lane, Costate& costate) {
    release_v_[lane] = costate.v;
    release_v_mem_[lane] = costate.v_mem;
    costate.v = costate.v_mem = 0;
  }

  /// Propagate back through a spike, by the two rules at the top of adjoint/layer_adjoint.py.
  void propagate_spike(int lane, Index slot, Costate& costate) {
    const Tile<T, kVectors>& tile = *tile_;
    const Index offset = neuron_index_[first_neuron_ + lane] * options_.max_spikes + slot;
    const double leak = tile.taus[lane].leak;
    const double height = tile.fires_at[lane] - tile.v_reset[lane];
    const bool fired_at_start = tile.starts_above[lane] && slot == 0 && spikes_.time[offset] == 0;
    const double slope =
        std::max<double>(spikes_.slope[offset], options_.min_slope * height * leak);
    if (spike_sets_v()) {
      if (options_.refractory == 0) propagate_release(lane, costate);
      const double drive =
          spikes_.cotangent[offset] - release_v_[lane] * spikes_.slope_after[offset];
      const double lam = fired_at_start ? 0.0 : -drive / slope;
      add_to_cause(offset, drive);
      if (parameter_gradients_) {
        parameter_gradient(kThreshold, lane) -= lam;
        parameter_gradient(kReset, lane) += release_v_[lane];
        parameter_gradient(kTauMem, lane) += tile.v_reset[lane] * release_v_mem_[lane];
      }
      costate.v = lam;
      costate.v_mem = 0;
      release_v_[lane] = release_v_mem_[lane] = 0;
      return;
    }
    const double drive = spikes_.cotangent[offset] - costate.v * height * leak;
    const double lam = fired_at_start ? 0.0 : -drive / slope;
    add_to_cause(offset, drive);
    if (parameter_gradients_) {
      parameter_gradient(kThreshold, lane) -= lam;
      // The first spike of a neuron that starts above its threshold does not reset.
      const bool is_reset = options_.subtract || !(tile.starts_above[lane] && slot == 0);
      if (is_reset) {
        parameter_gradient(kThreshold, lane) -= costate.v;
        parameter_gradient(kReset, lane) += costate.v;
        parameter_gradient(kTauMem, lane) -= height * costate.v_mem;
      }
    }
    costate.v += lam;
  }

  /// A spike that an arrival caused occurs at the time of this arrival: add the spike's cotangent
  /// to the gradient of that time.
  void add_to_cause(Index offset, double drive) {
    if (!by_time_ || !options_.jumps) return;
    const Index cause = spikes_.cause[offset];
    if (cause > 0 && cause <= intervals_.used(sample_)) by_time_[cause - 1] += T(drive);
  }

  const Population<T>& population_;
  const Options& options_;
  const Intervals<T>& intervals_;
  const SortedArrivals<T>& sorted_;
  const ForwardSpikes<T>& spikes_;
  const Tile<T, kVectors>* tile_ = nullptr;
  Index sample_ = 0, first_neuron_ = 0, last_interval_ = -1;
  typename Population<T>::NeuronIndex neuron_index_;
  typename Intervals<T>::Edges edges_;
  double* parameter_gradients_ = nullptr;
  bool vectorised_ = false;  // process several neurons at once
  T* by_time_ = nullptr;
  std::vector<Bits> pending_lanes_;  // for each interval, the lanes whose next event lies there
  // next event of each neuron
  alignas(64) double event_time_[kLanes];
  std::int32_t event_slot_[kLanes];
  bool event_is_release_[kLanes];
  double release_v_[kLanes], release_v_mem_[kLanes];
};

/// Compute the gradients. All lists of arrivals of a sample share its slots, of which there are
/// `population.arrivals`.
///
/// `scratch`: see `layer_forward`.
template <class T>
void layer_backward(const Population<T>& population, const Options& options,
                    const SortedArrivals<T>& sorted, const ForwardSpikes<T>& spikes,
                    const Gradients<T>& gradients, Index samples, Scratch<T>* scratch = nullptr) {
  const Index width = population.positions * population.neurons;
  std::fill_n(gradients.weight, population.rows * population.neurons, T(0));
  if (gradients.parameters) std::fill_n(gradients.parameters, gradients.fields * width, T(0));
  if (population.batch == 0 || population.neurons == 0) {
    if (gradients.time) std::fill_n(gradients.time, samples * population.arrivals, T(0));
    return;
  }
  Intervals<T> intervals(population, sorted);
  intervals.compute_steps(options.threads, gradients.with_taus(), scratch);
  Scratch<T> own_scratch;
  dispatch_tile_width<T>(population.neurons, [&](auto vectors) {
    constexpr int kVectors = decltype(vectors)::value;
    constexpr int kLanes = Tile<T, kVectors>::kLanes;
    const TileCache<T, kVectors> tile_cache(population, intervals);
    const Index tiles = (population.neurons + kLanes - 1) / kLanes,
                size = (population.rows + 1) * kLanes;
    // The number of partial gradients does not depend on the number of threads.
    const Index max_chunks = ((scratch ? 1 : kPartialGradients) + tiles - 1) / tiles;
    const WorkUnits units{tiles,
                          std::max<Index>(1, std::min(max_chunks, (population.batch + 3) / 4)),
                          population.batch};
    Array<T> tables(tiles * size), unit_tables(units.size() * size);
    // dL/dt of each arrival, (tiles, arrivals of all lists)
    const Index entries = sorted.first(population.batch);
    T* by_time = nullptr;
    if (gradients.time)
      by_time = ensure_capacity((scratch ? *scratch : own_scratch).by_time, tiles * entries);
    // Sum the tiles of each arrival, and write the lists of a sample to its slots.
    const Index lists = population.batch / samples;
    const auto write_time_gradients = [&](Index sample) {
      T* slot_gradients = gradients.time + sample * population.arrivals;
      std::fill_n(slot_gradients, population.arrivals, T(0));
      for (Index list = sample * lists; list < (sample + 1) * lists; ++list)
        for (Index arrival = 0; arrival < intervals.used(list); ++arrival) {
          T sum = 0;
          for (Index tile = 0; tile < tiles; ++tile)
            sum += by_time[tile * entries + sorted.first(list) + arrival];
          const Index slot = sorted.slot[sorted.first(list) + arrival];
          if (slot >= 0 && slot < population.arrivals) slot_gradients[slot] += sum;
        }
    };
    // one unit computes all time gradients of a sample
    const bool sample_is_one_unit = tiles == 1 && lists == 1;
    const Index parameter_size = kFields * population.positions * kLanes;
    Array<double> parameter_sums(gradients.parameters ? units.size() * parameter_size : 0);
    ThreadPool::shared().run(
        tiles, ThreadPool::useful_threads(options.threads, tables.size()), [&](Index tile) {
          pack_weights(population, tile * kLanes, kLanes, tables.data() + tile * size);
        });
    auto run_unit = [&](auto uniform, auto with_taus, Index unit) {
      constexpr bool kUniform = decltype(uniform)::value, kWithTaus = decltype(with_taus)::value;
      const Index tile = units.tile(unit), chunk = units.chunk(unit), first = tile * kLanes;
      T* unit_table = unit_tables.data() + unit * size;
      std::fill_n(unit_table, size, T(0));
      double* unit_parameters =
          gradients.parameters ? parameter_sums.data() + unit * parameter_size : nullptr;
      if (unit_parameters) std::fill_n(unit_parameters, parameter_size, 0.0);
      TileBackward<T, kVectors, kUniform, kWithTaus> backward(population, options, intervals,
                                                              sorted, spikes);
      std::optional<Tile<T, kVectors>> storage;
      for (Index list = units.begin(chunk); list < units.begin(chunk + 1); ++list) {
        const Index position = list % population.positions;
        T* list_time_gradients = nullptr;
        if (gradients.time) {
          list_time_gradients = by_time + tile * entries + sorted.first(list);
          std::fill_n(list_time_gradients, intervals.used(list), T(0));
        }
        backward.run(tile_cache.tile(tile, position, storage), tables.data() + tile * size, list,
                     first, unit_table, list_time_gradients,
                     unit_parameters ? unit_parameters + position * kFields * kLanes : nullptr);
        if (gradients.time && sample_is_one_unit) write_time_gradients(list);
      }
    };
    ThreadPool::shared().run(units.size(), options.threads, [&](Index unit) {
      const std::true_type yes;
      const std::false_type no;
      if (intervals.uniform())
        gradients.with_taus() ? run_unit(yes, yes, unit) : run_unit(yes, no, unit);
      else
        gradients.with_taus() ? run_unit(no, yes, unit) : run_unit(no, no, unit);
    });
    // ---- sum of the partial gradients
    const Index bands = std::min<Index>(population.rows, 16);
    ThreadPool::shared().run(
        bands, ThreadPool::useful_threads(options.threads, unit_tables.size()), [&](Index band) {
          for (Index row = population.rows * band / bands;
               row < population.rows * (band + 1) / bands; ++row)
            for (Index tile = 0; tile < tiles; ++tile) {
              const Index count = std::min<Index>(kLanes, population.neurons - tile * kLanes);
              T* sum = gradients.weight + row * population.neurons + tile * kLanes;
              for (Index chunk = 0; chunk < units.chunks; ++chunk) {
                const T* unit_table =
                    unit_tables.data() + units.index(tile, chunk) * size + row * kLanes;
                for (Index lane = 0; lane < count; ++lane) sum[lane] += unit_table[lane];
              }
            }
        });
    if (gradients.time && !sample_is_one_unit)
      ThreadPool::shared().run(samples,
                               ThreadPool::useful_threads(options.threads, tiles * entries),
                               write_time_gradients);
    if (gradients.parameters)
      for (Index field = 0; field < gradients.fields; ++field)
        for (Index position = 0; position < population.positions; ++position)
          for (Index neuron = 0; neuron < population.neurons; ++neuron) {
            const Index tile = neuron / kLanes, lane = neuron % kLanes;
            double sum = 0;
            for (Index chunk = 0; chunk < units.chunks; ++chunk)
              sum += parameter_sums[units.index(tile, chunk) * parameter_size +
                                    position * kFields * kLanes + field * kLanes + lane];
            gradients.parameters[(field * population.positions + position) * population.neurons +
                                 neuron] = T(sum);
          }
  });
}

}  // namespace native
