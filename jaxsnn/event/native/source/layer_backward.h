// Gradients of a population without feedback: what jaxsnn/event/adjoint/layer_adjoint.py does, a tile
// of neurons of one sample at a time.
//
// The tile carries two costates for each neuron through the sample's intervals from the last one that
// matters to the first, and adds a row to the weights' gradient at each arrival; spikes are settled in
// double precision, one by one where they are few.

#pragma once

#include "lanes.h"
#include "tiles.h"

namespace native {

/// One tile of one sample back through its arrivals.
template <class T, int kVectors, bool kUniform, bool kWithTaus>
class Backward {
  using V = Vector<T>;
  using Bits = std::uint64_t;
  static constexpr int kLanes = Tile<T, kVectors>::kLanes;

 public:
  Backward(const Population<T>& population, const Options& options, const Intervals<T>& intervals,
           const SortedArrivals<T>& sorted, const ForwardSpikes<T>& found)
      : population_(population),
        options_(options),
        intervals_(intervals),
        sorted_(sorted),
        spikes_(found) {}

  /// Adds to the gradients.
  ///
  /// `by_weight`: like the table; `by_time`: (arrivals,) in order, or null; `own`: (fields, lanes), or
  /// null.
  void run(const Tile<T, kVectors>& tile, const T* table, Index sample, Index first, T* by_weight,
           T* by_time, double* own) {
    tile_ = &tile;
    sample_ = sample;
    edges_ = intervals_.edges(sample);
    first_ = first;
    neuron_index_ = population_.neuron_index(sample);
    own_ = own;
    at_once_ = kUniform && !kWithTaus && !own && !options_.jumps && !spike_sets_v();
    by_time_ = by_time;
    collect();
    if (last_ < 0) return;  // nothing fires: nothing counts
    if (by_time)
      walk<true>(table, by_weight, by_time);
    else
      walk<false>(table, by_weight, by_time);
  }

 private:
  /// So few arrivals are compared with one by one.
  static constexpr Index kFew = 24;

  struct Costate {
    double v = 0, j = 0;              // P
    double v_mem = 0, j_mem = 0, j_syn = 0;  // its derivatives by the time constants
  };

  /// What happens: of each neuron its last spike, and in which interval that is.
  void collect() {
    const Index used = intervals_.used(sample_), slots = options_.max_spikes;
    who_.assign(used + 1, 0);
    last_ = -1;
    Bits fired = 0;
    if (slots == 1 && neuron_index_.step == 1) {
      const T* times = spikes_.time + neuron_index_[first_];
      std::fill_n(slot_, kLanes, 0);
      std::fill_n(release_, kLanes, false);
      for (int lane = 0; lane < tile_->count; ++lane) {
        when_[lane] = times[lane];
        fired |= Bits(times[lane] < std::numeric_limits<T>::infinity()) << lane;
      }
    } else {
      for (int lane = 0; lane < tile_->count; ++lane) {
        const T* times = spikes_.time + neuron_index_[first_ + lane] * slots;
        Index slot = 0;
        while (slot < slots && times[slot] < std::numeric_limits<T>::infinity()) ++slot;
        if (slot == 0) continue;
        await(lane, slot - 1, false);
        fired |= Bits(1) << lane;
      }
    }
    alignas(64) std::int64_t numbers[kLanes];
    const bool few = used <= kFew && !options_.jumps;
    if (few) all_earlier(used, numbers);
    for (Bits left = fired; left; left &= left - 1) {
      const int lane = __builtin_ctzll(left);
      const Index number = few ? numbers[lane] : interval_of(lane, used);
      who_[number] |= Bits(1) << lane;
      last_ = std::max(last_, number);
    }
  }

  /// `earlier` of all neurons, among few times.
  void all_earlier(Index used, std::int64_t numbers[kLanes]) const {
    const T* times = sorted_.time + sorted_.first(sample_);
    LongVector found[kLanes / kDoubleLanes] = {};
    for (Index n = 0; n < used; ++n)
      for (int q = 0; q < kLanes / kDoubleLanes; ++q)
        found[q] -= double(times[n]) < load<double>(when_ + q * kDoubleLanes);
    std::memcpy(numbers, found, sizeof(found));
  }

  /// What happens to a neuron next, backwards: a spike, or the end of the refractory time behind it.
  void await(int lane, Index slot, bool release) {
    const Index place = neuron_index_[first_ + lane] * options_.max_spikes + slot;
    const T time = spikes_.time[place];
    slot_[lane] = std::int32_t(slot);
    release_[lane] = release;
    when_[lane] = release ? released(double(time) + options_.refractory) : double(time);
    // wanted when its turn comes
    __builtin_prefetch(spikes_.slope + place);
    __builtin_prefetch(spikes_.cotangent + place);
  }

  /// The interval of what happens to a neuron next, which is none after `number`.
  Index interval_of(int lane, Index number) const {
    const T* times = sorted_.time + sorted_.first(sample_);
    const double time = when_[lane];
    const Index place = neuron_index_[first_ + lane] * options_.max_spikes + slot_[lane];
    if (options_.jumps && !release_[lane] && std::isinf(spikes_.slope[place]))
      // what arrives at that time has made it fire, and comes before it
      return std::upper_bound(times, times + number, T(time)) - times;
    // what arrives at the very time of a spike comes after it
    return earlier(times, number, time);
  }

  /// Goes on to what happens to a neuron before; whether that is in the same interval.
  bool advance(int lane, Index number) {
    const Index slot = slot_[lane];
    if (release_[lane])
      await(lane, slot, false);
    else if (slot == 0)
      return false;
    else
      await(lane, slot - 1, options_.refractory > 0);
    const Index before = interval_of(lane, number);
    if (before < number) who_[before] |= Bits(1) << lane;
    return before == number;
  }

  /// How many of some times in order are below another: by halves, without a branch to foresee, and
  /// the last ones at once.
  static Index earlier(const T* times, Index used, double time) {
    Index found = 0, left = used;
    while (left > kWidth<T>) {
      const Index half = (left + 1) / 2;
      found += times[found + half - 1] < time ? half : 0;
      left -= half;
    }
    const bool exact = double(T(time)) == time;  // the end of a refractory time need not be
    if (used >= kWidth<T> && exact) {
      const Index first = std::min<Index>(found, used - kWidth<T>);
      const unsigned later = at_least(load<T>(times + first), broadcast(T(time)));
      return first + __builtin_ctz(later | 1u << kWidth<T>);
    }
    for (; left > 0; --left) found += times[found] < time;
    return found;
  }

  /// When V is let go, as far as it is told from when something arrives that moves V.
  double released(double time) const { return options_.jumps ? double(T(time)) : time; }

  template <bool kTime>
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
    std::fill_n(free_v_, kLanes, 0.0);
    std::fill_n(free_mem_, kLanes, 0.0);
    const Steps<T> steps = kUniform ? intervals_.steps(sample_) : Steps<T>();
    const StepDerivatives<T>* step_derivatives = kUniform && kWithTaus ? intervals_.step_derivatives(sample_) : nullptr;
    const auto rows = intervals_.rows(sample_);
    for (Index number = last_; number >= 0; --number) {
      prefetch_row<T, kVectors>(by_weight + rows.at_clamped(number - kPrefetchDistance) * kLanes);
      const bool happens = who_[number] != 0;
      alignas(64) T later[5][kLanes];
      if (__builtin_expect(happens, 0)) {
        std::memcpy(later[0], p_v, sizeof(p_v));
        std::memcpy(later[1], p_j, sizeof(p_j));
        if constexpr (kWithTaus) {
          std::memcpy(later[2], v_mem, sizeof(v_mem));
          std::memcpy(later[3], j_mem, sizeof(j_mem));
          std::memcpy(later[4], j_syn, sizeof(j_syn));
        }
      }
      // P = F^T P', and dP = F^T dP' + (dF)^T P'
      for (int q = 0; q < kVectors; ++q) {
        V em, es, k, bound;
        const double t = kUniform ? 0 : edges_[number + 1] - edges_[number];
        if constexpr (kUniform) {
          em = broadcast(steps[number].em);
          es = broadcast(steps[number].es);
          k = broadcast(steps[number].k);
        } else {
          tile.compute_step(q, t, em, es, k, bound);
        }
        if constexpr (kWithTaus) {
          V em_mem, k_mem, es_syn, k_syn;
          if constexpr (kUniform) {
            em_mem = broadcast(step_derivatives[number].em_mem);
            k_mem = broadcast(step_derivatives[number].k_mem);
            es_syn = broadcast(step_derivatives[number].es_syn);
            k_syn = broadcast(step_derivatives[number].k_syn);
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
      if (__builtin_expect(happens, 0)) {
        alignas(64) T now[5][kLanes];
        std::memcpy(now[0], p_v, sizeof(p_v));
        std::memcpy(now[1], p_j, sizeof(p_j));
        if constexpr (kWithTaus) {
          std::memcpy(now[2], v_mem, sizeof(v_mem));
          std::memcpy(now[3], j_mem, sizeof(j_mem));
          std::memcpy(now[4], j_syn, sizeof(j_syn));
        }
        settle(number, later, now);
        std::memcpy(p_v, now[0], sizeof(p_v));
        std::memcpy(p_j, now[1], sizeof(p_j));
        if constexpr (kWithTaus) {
          std::memcpy(v_mem, now[2], sizeof(v_mem));
          std::memcpy(j_mem, now[3], sizeof(j_mem));
          std::memcpy(j_syn, now[4], sizeof(j_syn));
        }
      }
      if (number == 0) break;
      // the arrival at the interval's begin: W e is added to the state, e along j
      const Index row = rows[number];
      T* by_row = by_weight + row * kLanes;
      [[maybe_unused]] V moved = {};
      for (int q = 0; q < kVectors; ++q) {
        V sum;
        std::memcpy(&sum, by_row + q * kWidth<T>, sizeof(sum));
        sum += jumps ? p_v[q] : p_j[q];
        std::memcpy(by_row + q * kWidth<T>, &sum, sizeof(sum));
        if constexpr (kTime || kWithTaus) {
          V weights;
          std::memcpy(&weights, table + row * kLanes + q * kWidth<T>, sizeof(weights));
          if constexpr (kWithTaus) {
            by_mem[q] += weights * (jumps ? v_mem[q] : j_mem[q]);
            if (!jumps) by_syn[q] += weights * j_syn[q];
          }
          // - P . A e W
          if constexpr (kTime)
            moved += weights * (jumps ? p_v[q] * leak[q] : p_j[q] * synaptic[q] - p_v[q] * gain[q]);
        }
      }
      if constexpr (kTime) by_time[number - 1] += horizontal_sum(moved);
    }
    if (!own_) return;
    alignas(64) T start[5][kLanes];
    std::memcpy(start[0], p_v, sizeof(p_v));
    std::memcpy(start[1], p_j, sizeof(p_j));
    std::memcpy(start[2], v_mem, sizeof(v_mem));
    std::memcpy(start[3], j_mem, sizeof(j_mem));
    std::memcpy(start[4], j_syn, sizeof(j_syn));
    for (int lane = 0; lane < tile.count; ++lane)
      begin(lane, {start[0][lane], start[1][lane], start[2][lane], start[3][lane], start[4][lane]});
    if constexpr (kWithTaus) {
      alignas(64) T through[2][kLanes];
      std::memcpy(through[0], by_mem, sizeof(by_mem));
      std::memcpy(through[1], by_syn, sizeof(by_syn));
      for (int lane = 0; lane < tile.count; ++lane) {
        own(kTauMem, lane) += through[0][lane];
        own(kTauSyn, lane) += through[1][lane];
      }
    }
  }

  double& own(Field field, int lane) { return own_[field * kLanes + lane]; }

  bool spike_sets_v() const { return options_.spike_sets_v(); }

  /// What the costate at time 0 says of the lanes.
  void begin(int lane, const Costate& at_start) {
    const bool lowered = tile_->starts_above[lane] && !spike_sets_v() && !options_.subtract;
    const double v = lowered ? tile_->v_reset[lane] : tile_->v_start[lane];
    own(lowered ? kReset : kStart, lane) += at_start.v;
    own(kCurrent, lane) += at_start.j;
    const double j = tile_->j_start[lane];
    own(kTauMem, lane) += v * at_start.v_mem + j * at_start.j_mem;
    own(kTauSyn, lane) += j * at_start.j_syn;
  }

  /// The lanes in which something happens in an interval, from its end to its begin.
  void settle(Index number, const T later[5][kLanes], T now[5][kLanes]) {
    Bits left = std::exchange(who_[number], 0);
    if (at_once_ && __builtin_popcountll(left) >= kMinSelected)
      while (left) settle(LaneSelection(left), number, later, now);
    for (; left; left &= left - 1) settle(__builtin_ctzll(left), number, later, now);
  }

  void settle(int lane, Index number, const T later[5][kLanes], T now[5][kLanes]) {
    Costate costate{later[0][lane], later[1][lane]};
    if constexpr (kWithTaus) {
      costate.v_mem = later[2][lane];
      costate.j_mem = later[3][lane];
      costate.j_syn = later[4][lane];
    }
    double at = edges_[number + 1];
    do {
      flow_back(lane, costate, at - when_[lane]);
      at = when_[lane];
      release_[lane] ? release(lane, costate) : spike(lane, slot_[lane], costate);
    } while (advance(lane, number));
    flow_back(lane, costate, at - edges_[number]);
    now[0][lane] = T(costate.v);
    now[1][lane] = T(costate.j);
    if constexpr (kWithTaus) {
      now[2][lane] = T(costate.v_mem);
      now[3][lane] = T(costate.j_mem);
      now[4][lane] = T(costate.j_syn);
    }
  }

  /// The same of several neurons whose spikes take from v, and of which no parameter's gradient is asked.
  __attribute__((noinline)) void settle(const LaneSelection& selection, Index number, const T later[5][kLanes],
                                        T now[5][kLanes]) {
    const Tile<T, kVectors>& tile = *tile_;
    const TimeConstants& taus = intervals_.taus();
    const DoubleVector zero = {};
    const DoubleVector height =
        selection.gather(tile.fires_at, tile.shared_levels) - selection.gather(tile.v_reset, tile.shared_levels);
    const DoubleVector by_leak = height * taus.leak, box_tolerance = options_.min_slope * by_leak;
    DoubleVector v = selection.gather(later[0]), j = selection.gather(later[1]);
    DoubleVector time = zero + edges_[number + 1];
    const auto flow_back_to = [&](DoubleVector before) {
      const FlowLanes flow = flow_over(taus, maximum(time - before, zero));
      j = v * flow.k + j * flow.es;
      v *= flow.em;
      time = before;
    };
    for (unsigned who = selection.mask; who;) {
      alignas(64) double slopes[kDoubleLanes], cotangents[kDoubleLanes] = {};
      std::fill_n(slopes, kDoubleLanes, 1.0);
      unsigned fire = who;
      for (unsigned left = who; left; left &= left - 1) {
        const int n = __builtin_ctz(left), lane = selection.lane[n];
        const Index place = neuron_index_[first_ + lane] * options_.max_spikes + slot_[lane];
        slopes[n] = spikes_.slope[place];
        cotangents[n] = spikes_.cotangent[place];
        if (tile.starts_above[lane] && slot_[lane] == 0 && when_[lane] == 0) fire &= ~(1u << n);
      }
      const LaneMask mine = mask_of(who);
      flow_back_to(mine ? selection.gather(when_) : time);
      const DoubleVector drive = load<double>(cotangents) - v * by_leak;
      v -= mask_of(fire) ? drive / maximum(load<double>(slopes), box_tolerance) : zero;
      for (unsigned left = who; left; left &= left - 1) {
        const int n = __builtin_ctz(left);
        if (!advance(selection.lane[n], number)) who &= ~(1u << n);
      }
    }
    flow_back_to(zero + edges_[number]);
    selection.scatter(now[0], v);
    selection.scatter(now[1], j);
  }

  void flow_back(int lane, Costate& costate, double gap) {
    if (!(gap > 0) || (costate.v == 0 && costate.j == 0)) return;
    const TimeConstants& taus = tile_->taus[lane];
    const Flow flow = flow_over(taus, gap);
    if constexpr (kWithTaus) {
      const FlowDerivatives by = flow_derivatives(taus, gap, flow);
      const double v_mem = costate.v_mem;
      costate.v_mem = v_mem * flow.em + costate.v * by.em_mem;
      costate.j_mem = v_mem * flow.k + costate.j_mem * flow.es + costate.v * by.k_mem;
      costate.j_syn = costate.j_syn * flow.es + costate.v * by.k_syn + costate.j * by.es_syn;
    }
    costate.j = costate.v * flow.k + costate.j * flow.es;
    costate.v *= flow.em;
  }

  /// Back to before V is let go from v_reset.
  void release(int lane, Costate& costate) {
    free_v_[lane] = costate.v;
    free_mem_[lane] = costate.v_mem;
    costate.v = costate.v_mem = 0;
  }

  /// Back to before a spike: the two rules at the top of adjoint/layer_adjoint.py.
  void spike(int lane, Index slot, Costate& costate) {
    const Tile<T, kVectors>& tile = *tile_;
    const Index place = neuron_index_[first_ + lane] * options_.max_spikes + slot;
    const double leak = tile.taus[lane].leak;
    const double height = tile.fires_at[lane] - tile.v_reset[lane];
    const bool at_start = tile.starts_above[lane] && slot == 0 && spikes_.time[place] == 0;
    const double slope = std::max<double>(spikes_.slope[place], options_.min_slope * height * leak);
    if (spike_sets_v()) {
      if (options_.refractory == 0) release(lane, costate);
      const double drive = spikes_.cotangent[place] - free_v_[lane] * spikes_.slope_after[place];
      const double lam = at_start ? 0.0 : -drive / slope;
      pass_on(place, drive);
      if (own_) {
        own(kThreshold, lane) -= lam;
        own(kReset, lane) += free_v_[lane];
        own(kTauMem, lane) += tile.v_reset[lane] * free_mem_[lane];
      }
      costate.v = lam;
      costate.v_mem = 0;
      free_v_[lane] = free_mem_[lane] = 0;
      return;
    }
    const double drive = spikes_.cotangent[place] - costate.v * height * leak;
    const double lam = at_start ? 0.0 : -drive / slope;
    pass_on(place, drive);
    if (own_) {
      own(kThreshold, lane) -= lam;
      // where a neuron starts above its threshold its first spike takes nothing
      const bool takes = options_.subtract || !(tile.starts_above[lane] && slot == 0);
      if (takes) {
        own(kThreshold, lane) -= costate.v;
        own(kReset, lane) += costate.v;
        own(kTauMem, lane) -= height * costate.v_mem;
      }
    }
    costate.v += lam;
  }

  /// A spike that an arrival made comes when that comes.
  void pass_on(Index place, double drive) {
    if (!by_time_ || !options_.jumps) return;
    const Index cause = spikes_.cause[place];
    if (cause > 0 && cause <= intervals_.used(sample_)) by_time_[cause - 1] += T(drive);
  }

  const Population<T>& population_;
  const Options& options_;
  const Intervals<T>& intervals_;
  const SortedArrivals<T>& sorted_;
  const ForwardSpikes<T>& spikes_;
  const Tile<T, kVectors>* tile_ = nullptr;
  Index sample_ = 0, first_ = 0, last_ = -1;
  typename Population<T>::NeuronIndex neuron_index_;
  typename Intervals<T>::Edges edges_;
  double* own_ = nullptr;
  bool at_once_ = false;  // neurons next to each other are settled at once
  T* by_time_ = nullptr;
  std::vector<Bits> who_;  // by intervals, neurons of which what happens next is there
  // what happens to each neuron next
  alignas(64) double when_[kLanes];
  std::int32_t slot_[kLanes];
  bool release_[kLanes];
  double free_v_[kLanes], free_mem_[kLanes];
};

/// Gradients are added up in so many parts, and these in order: whatever the number of threads.
constexpr Index kParts = 16;

/// Gradients. The lists of arrivals of a sample share its slots, of which there are `population.arrivals`.
///
/// `room`: as of `layer_forward`.
template <class T>
void layer_backward(const Population<T>& population, const Options& options, const SortedArrivals<T>& sorted,
                    const ForwardSpikes<T>& found, const Gradients<T>& gradients, Index samples,
                    Scratch<T>* room = nullptr) {
  const Index width = population.positions * population.neurons;
  std::fill_n(gradients.weight, population.rows * population.neurons, T(0));
  if (gradients.parameters) std::fill_n(gradients.parameters, gradients.fields * width, T(0));
  if (population.batch == 0 || population.neurons == 0) {
    if (gradients.time) std::fill_n(gradients.time, samples * population.arrivals, T(0));
    return;
  }
  Intervals<T> intervals(population, sorted);
  intervals.compute_steps(options.threads, gradients.with_taus(), room);
  Scratch<T> own_room;
  dispatch_tile_width<T>(population.neurons, [&](auto vectors) {
    constexpr int kVectors = decltype(vectors)::value;
    constexpr int kLanes = Tile<T, kVectors>::kLanes;
    const TileCache<T, kVectors> shared(population, intervals);
    const Index tiles = (population.neurons + kLanes - 1) / kLanes, size = (population.rows + 1) * kLanes;
    // Parts of a fixed number are added up in a fixed order, whatever the number of threads.
    const Index wanted = ((room ? 1 : kParts) + tiles - 1) / tiles;
    const WorkUnits units{tiles, std::max<Index>(1, std::min(wanted, (population.batch + 3) / 4)),
                      population.batch};
    Array<T> tables(tiles * size), parts(units.size() * size);
    // of each arrival, tile by tile
    const Index entries = sorted.first(population.batch);
    T* by_time = nullptr;
    if (gradients.time) by_time = ensure_capacity((room ? *room : own_room).by_time, tiles * entries);
    // of a sample: its lists one after the other, the tiles of each arrival added up
    const Index lists = population.batch / samples;
    const auto by_slot = [&](Index sample) {
      T* to = gradients.time + sample * population.arrivals;
      std::fill_n(to, population.arrivals, T(0));
      for (Index b = sample * lists; b < (sample + 1) * lists; ++b)
        for (Index number = 0; number < intervals.used(b); ++number) {
          T sum = 0;
          for (Index n = 0; n < tiles; ++n)
            sum += by_time[n * entries + sorted.first(b) + number];
          const Index slot = sorted.slot[sorted.first(b) + number];
          if (slot >= 0 && slot < population.arrivals) to[slot] += sum;
        }
    };
    const bool alone = tiles == 1 && lists == 1;  // of a sample one unit tells all
    const Index own_size = kFields * population.positions * kLanes;
    Array<double> own(gradients.parameters ? units.size() * own_size : 0);
    ThreadPool::shared().run(tiles, ThreadPool::useful_threads(options.threads, tables.size()), [&](Index n) {
      pack_weights(population, n * kLanes, kLanes, tables.data() + n * size);
    });
    auto unit = [&](auto uniform, auto with_taus, Index number) {
      constexpr bool kUniform = decltype(uniform)::value, kWithTaus = decltype(with_taus)::value;
      const Index n = units.tile(number), chunk = units.chunk(number), first = n * kLanes;
      T* part = parts.data() + number * size;
      std::fill_n(part, size, T(0));
      double* own_part = gradients.parameters ? own.data() + number * own_size : nullptr;
      if (own_part) std::fill_n(own_part, own_size, 0.0);
      Backward<T, kVectors, kUniform, kWithTaus> backward(population, options, intervals, sorted, found);
      std::optional<Tile<T, kVectors>> own_tile;
      for (Index b = units.begin(chunk); b < units.begin(chunk + 1); ++b) {
        const Index position = b % population.positions;
        T* of_time = nullptr;
        if (gradients.time) {
          of_time = by_time + n * entries + sorted.first(b);
          std::fill_n(of_time, intervals.used(b), T(0));
        }
        backward.run(shared.tile(n, position, own_tile), tables.data() + n * size, b, first, part, of_time,
                     own_part ? own_part + position * kFields * kLanes : nullptr);
        if (gradients.time && alone) by_slot(b);
      }
    };
    ThreadPool::shared().run(units.size(), options.threads, [&](Index number) {
      const std::true_type yes;
      const std::false_type no;
      if (intervals.uniform())
        gradients.with_taus() ? unit(yes, yes, number) : unit(yes, no, number);
      else
        gradients.with_taus() ? unit(no, yes, number) : unit(no, no, number);
    });
    // ---- the parts, added up
    const Index bands = std::min<Index>(population.rows, 16);
    ThreadPool::shared().run(bands, ThreadPool::useful_threads(options.threads, parts.size()), [&](Index band) {
      for (Index row = population.rows * band / bands; row < population.rows * (band + 1) / bands; ++row)
        for (Index n = 0; n < tiles; ++n) {
          const Index count = std::min<Index>(kLanes, population.neurons - n * kLanes);
          T* sum = gradients.weight + row * population.neurons + n * kLanes;
          for (Index chunk = 0; chunk < units.chunks; ++chunk) {
            const T* part = parts.data() + units.index(n, chunk) * size + row * kLanes;
            for (Index lane = 0; lane < count; ++lane) sum[lane] += part[lane];
          }
        }
    });
    if (gradients.time && !alone)
      ThreadPool::shared().run(samples, ThreadPool::useful_threads(options.threads, tiles * entries), by_slot);
    if (gradients.parameters)
      for (Index field = 0; field < gradients.fields; ++field)
        for (Index position = 0; position < population.positions; ++position)
          for (Index neuron = 0; neuron < population.neurons; ++neuron) {
            const Index n = neuron / kLanes, lane = neuron % kLanes;
            double sum = 0;
            for (Index chunk = 0; chunk < units.chunks; ++chunk)
              sum += own[units.index(n, chunk) * own_size + position * kFields * kLanes +
                         field * kLanes + lane];
            gradients.parameters[(field * population.positions + position) * population.neurons + neuron] = T(sum);
          }
  });
}

}  // namespace native
