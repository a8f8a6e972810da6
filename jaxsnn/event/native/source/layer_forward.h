// A population without feedback: what jaxsnn/event/forward/layer.py does, a tile of neurons of one
// sample at a time.
//
// A tile's state stays in registers while it walks through the sample's arrivals in the order of
// time. Where all neurons have the same time constants an interval's coefficients are computed once
// for all of them. In each interval a bound says in which lanes a crossing is possible: as if j did
// not fall. Those are settled in double precision: one by one where they are few.

#pragma once

#include "lanes.h"
#include "tiles.h"

namespace native {

/// One tile of one sample through all its arrivals.
///
/// `kJumps`: an arrival moves v, and not j; `kBoxes`: it opens or closes a box, j is what these add up to.
template <class T, int kVectors, bool kUniform, bool kJumps, bool kBoxes>
class Forward {
  using V = Vector<T>;
  using Bits = std::uint64_t;
  static constexpr int kLanes = Tile<T, kVectors>::kLanes;

 public:
  Forward(const Population<T>& population, const Options& options, const Intervals<T>& intervals,
          const Spikes<T>& spikes)
      : population_(population),
        options_(options),
        intervals_(intervals),
        spikes_(spikes),
        closed_(kUniform && !kJumps && options.refractory == 0 &&
                intervals.taus().ratio == Ratio::kMemTwiceSyn) {}

  /// `box_tolerance`: of each lane, under boxes (`compute_box_tolerances`).
  void run(const Tile<T, kVectors>& tile, const T* table, const T* box_tolerance, Index sample, Index first) {
    sample_ = sample;
    edges_ = intervals_.edges(sample);
    first_ = first;
    tile_ = &tile;
    held_ = 0;
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
  /// What there is of each of the tile's neurons, `each` times.
  template <class Number>
  void fill(Number* numbers, Index each, Number value) {
    if (neuron_index_.step == 1) {
      std::fill_n(numbers + neuron_index_[first_] * each, tile_->count * each, value);
      return;
    }
    for (int lane = 0; lane < tile_->count; ++lane)
      std::fill_n(numbers + neuron_index_[first_ + lane] * each, each, value);
  }

  template <bool kPositive>
  void walk(const T* table, const T* box_tolerance) {
    const Tile<T, kVectors>& tile = *tile_;
    V v[kVectors], j[kVectors], threshold[kVectors];
    [[maybe_unused]] V low[kVectors] = {}, rest_j[kVectors], least_j[kVectors];
    for (int lane = 0; lane < kLanes; ++lane) {
      reinterpret_cast<T*>(v)[lane] = T(tile.v_start[lane]);
      reinterpret_cast<T*>(j)[lane] = T(tile.j_start[lane]);
    }
    std::memcpy(threshold, threshold_, sizeof(threshold));
    if constexpr (kBoxes) {
      std::memcpy(rest_j, j, sizeof(j));
      std::memcpy(least_j, box_tolerance, sizeof(least_j));
    }
    const Index used = intervals_.used(sample_);
    const auto rows = intervals_.rows(sample_);
    const Steps<T> steps = kUniform ? intervals_.steps(sample_) : Steps<T>();
    Bits starts = 0;
    for (int lane = 0; lane < tile.count; ++lane) starts |= Bits(tile.starts_above[lane]) << lane;
    for (Index number = 0; number <= used; ++number) {
      const T* weights = table + rows[number] * kLanes;
      prefetch_row<T, kVectors>(table + rows.at_clamped(number + kPrefetchDistance) * kLanes);
      V v_now[kVectors], v_end[kVectors], j_now[kVectors], j_end[kVectors];
      Bits hit = 0;
      for (int q = 0; q < kVectors; ++q) {
        V arriving, em, es, k, bound;
        std::memcpy(&arriving, weights + q * kWidth<T>, sizeof(arriving));
        coefficients(tile, steps, number, q, em, es, k, bound);
        v_now[q] = kJumps ? v[q] + arriving : v[q];
        j_now[q] = j[q];
        if constexpr (kBoxes)
          update_box_sum<T>(j_now[q], low[q], arriving, rest_j[q], least_j[q]);
        else if constexpr (!kJumps)
          j_now[q] += arriving;
        const V rest = v_now[q] * em;
        v_end[q] = rest + j_now[q] * k;
        if constexpr (kJumps) {  // v is monotone between arrivals
          hit |= Bits(at_least(v_now[q], threshold[q]) | at_least(v_end[q], threshold[q]))
                 << (q * kWidth<T>);
        } else {
          const V zero = {};
          const V pull = kPositive ? j_now[q] : (j_now[q] > zero ? j_now[q] : zero);
          hit |= Bits(at_least(rest + pull * bound, threshold[q])) << (q * kWidth<T>);
        }
        j_end[q] = j_now[q] * es;
      }
      if (__builtin_expect((hit | held_ | starts) != 0, 0)) {
        alignas(64) T before[3][kLanes], after[2][kLanes];
        std::memcpy(before[0], v_now, sizeof(v));
        std::memcpy(before[1], j_now, sizeof(j));
        if constexpr (kJumps) std::memcpy(before[2], v, sizeof(v));
        std::memcpy(after[0], v_end, sizeof(v));
        std::memcpy(after[1], j_end, sizeof(j));
        if (!kJumps && __builtin_popcountll(hit) > 2) hit &= may_cross(before, after);
        const Bits alive = alive_;
        Bits left = (hit | held_ | starts) & alive_;
        if (closed_ && __builtin_popcountll(left) >= kMinSelected) {
          while (left) settle(LaneSelection(left), number, before, after);
          std::memcpy(v_end, after[0], sizeof(v));
          std::memcpy(j_end, after[1], sizeof(j));
        }
        for (; left; left &= left - 1) {
          const int lane = __builtin_ctzll(left);
          if (!kJumps || arrive(lane, number, before[2][lane], before[0][lane], after[0][lane]))
            settle(lane, number, before[0][lane], before[1][lane], after[0][lane], after[1][lane]);
          // into the vectors as they are: such as are read behind single numbers wait for these
          for (int q = 0; q < kVectors; ++q) {
            set_lane<T>(v_end[q], lane - q * kWidth<T>, after[0][lane]);
            set_lane<T>(j_end[q], lane - q * kWidth<T>, after[1][lane]);
          }
        }
        starts = 0;
        if (!alive_) return;
        if (alive_ != alive) std::memcpy(threshold, threshold_, sizeof(threshold));
      }
      for (int q = 0; q < kVectors; ++q) {
        v[q] = v_end[q];
        j[q] = j_end[q];
      }
    }
  }

  void coefficients(const Tile<T, kVectors>& tile, const Steps<T>& steps, Index number, int q, V& em,
                    V& es, V& k, V& bound) const {
    if constexpr (kUniform) {
      const Step<T> step = steps[number];
      em = broadcast(step.em);
      es = broadcast(step.es);
      k = broadcast(step.k);
      bound = broadcast(step.bound);
    } else {
      const double t = edges_[number + 1] - edges_[number];
      tile.compute_step(q, t, em, es, k, bound);
    }
  }

  /// Who may cross as far as an interval's ends tell: v is above there, or has a maximum in between
  /// that is high enough as far as `close` tells. Nobody for whom `crosses` holds is missing, however
  /// either rounds.
  __attribute__((noinline)) Bits may_cross(const T before[3][kLanes],
                                           const T after[2][kLanes]) const {
    constexpr T kSlack = T(64 * rounding_of(T())), kTiny = 64 * std::numeric_limits<T>::min();
    Bits found = 0;
    for (int q = 0; q < kVectors; ++q) {
      const int at = q * kWidth<T>;
      const V v = load<T>(before[0] + at), j = load<T>(before[1] + at);
      const V v_end = load<T>(after[0] + at);
      const V threshold = load<T>(threshold_ + at), both = v + j, zero = {};
      const V size = (v < zero ? -v : v) + j;
      found |= Bits(at_least(v_end, threshold) | at_least(v, threshold) |
                    (at_least(v_end + kSlack * size, load<T>(after[1] + at)) &
                     at_least(both * both + kTiny, tile_->peak_factor * j * threshold)))
               << at;
    }
    return found;
  }

  bool is_above(int lane, double v) const {
    return population_.strict ? v > tile_->fires_at[lane] : v >= tile_->fires_at[lane];
  }

  /// What an arrival that moves v does before time goes on; whether it does.
  bool arrive(int lane, Index number, double before, double v, T& v_end) {
    const double threshold = tile_->fires_at[lane];
    if (held_ >> lane & 1) {
      v_end = T(tile_->v_reset[lane]);
    } else if (number > 0) {
      const bool newly = (is_above(lane, v) && !is_above(lane, before)) ||
                         (v >= threshold && !(before >= threshold));
      cause_[lane] = newly ? std::int32_t(number) : v >= threshold ? cause_[lane] : 0;
    }
    return edges_[number + 1] > edges_[number];
  }

  /// One neuron through an interval, with all its spikes there.
  void settle(int lane, Index number, double v, double j, T& v_end, T& j_end) {
    const TimeConstants& taus = tile_->taus[lane];
    const double threshold = tile_->fires_at[lane], edge = edges_[number + 1];
    double at = edges_[number];
    const Index place = neuron_index_[first_ + lane] * options_.max_spikes;
    std::int32_t& count = spikes_.count[neuron_index_[first_ + lane]];
    double v_last = v_end, j_last = j_end;
    if (held_ >> lane & 1) {
      // V is held until it is let go, or to the interval's end
      const double hold = std::min(free_[lane] - at, edge - at);
      const bool let_go = ends_before(free_[lane], edge);
      const double left = std::max(edge - at - hold, 0.0);
      j *= std::exp(-hold * taus.synaptic);
      v = tile_->v_reset[lane];
      at += hold;
      if (let_go) {
        held_ &= ~(Bits(1) << lane);
        note_release(lane, place, count, v, j);
      }
      const Flow flow = flow_over(taus, left);
      v_last = v * flow.em + j * flow.k;
      j_last = j * flow.es;
    }
    bool fires = kJumps ? jumps_or_comes(lane, v, j, v_last)
                        : v >= threshold || crosses(taus, v, j, v_last, j_last, threshold);
    // To the interval's end: the flow until then is known before it is known when the neuron fires.
    Flow to_end;
    if (!kJumps && fires) to_end = flow_over(taus, std::max(edge - at, 0.0));
    while (fires) {
      const double room = std::max(edge - at, 0.0);
      const auto [wait, to_spike] = v >= threshold
                                        ? Crossing{0.0, {1, 1, 0}}
                                        : find_crossing(taus, v, j, threshold, room, T(v_last) >= threshold,
                                                tolerance_of(T()));
      const double v_there = v * to_spike.em + j * to_spike.k;
      j *= to_spike.es;
      at = std::min(at + wait, edge);
      if (count < options_.max_spikes) {
        spikes_.time[place + count] = behind(edges_[number], wait, at);
        spikes_.slope[place + count] = T(taus.rate(threshold, j));
        if (kJumps && v >= threshold) {
          spikes_.slope[place + count] = std::numeric_limits<T>::infinity();
          spikes_.cause[place + count] = cause_[lane];
        }
      }
      ++count;
      v = tile_->v_reset[lane];
      if (kJumps && options_.refractory == 0 && options_.spike_sets_v())
        note_release(lane, place, count, v, j);
      const bool finished = options_.once || count >= options_.max_counted;
      if (finished) {
        leave(lane);
        break;
      }
      if (options_.refractory > 0) {
        free_[lane] = at + options_.refractory;
        const double hold = std::min(std::max(edge - at, 0.0), options_.refractory);
        j *= std::exp(-hold * taus.synaptic);
        at += hold;
        if (!ends_before(free_[lane], edge)) {
          held_ |= Bits(1) << lane;
          v_last = v;
          j_last = j;
          break;
        }
        note_release(lane, place, count, v, j);
      } else if (options_.subtract) {
        v += std::max(v_there - threshold, 0.0);
      }
      const bool soon = !kJumps && options_.refractory == 0 && to_spike.es > 0.5 && to_spike.em > 0.5;
      to_end = soon ? remaining_flow(to_end, to_spike) : flow_over(taus, std::max(edge - at, 0.0));
      v_last = v * to_end.em + j * to_end.k;
      j_last = j * to_end.es;
      if (kJumps)
        fires = edge > at && jumps_or_comes(lane, v, j, v_last);
      else
        fires = crosses(taus, v, j, v_last, j_last, threshold) ||
                (options_.subtract && options_.refractory == 0 && v >= threshold);
    }
    v_end = T(v_last);
    j_end = T(j_last);
  }

  /// The same of several neurons of tau_mem = 2 tau_syn without a refractory time.
  __attribute__((noinline)) void settle(const LaneSelection& selection, Index number, const T before[3][kLanes],
                                        T after[2][kLanes]) {
    const TimeConstants& taus = intervals_.taus();
    const DoubleVector zero = {};
    const DoubleVector threshold = selection.gather(tile_->fires_at, tile_->shared_levels);
    const DoubleVector v_reset = selection.gather(tile_->v_reset, tile_->shared_levels);
    DoubleVector v = selection.gather(before[0]), j = selection.gather(before[1]);
    DoubleVector v_last = selection.gather(after[0]), j_last = selection.gather(after[1]);
    const DoubleVector end = zero + edges_[number + 1];
    DoubleVector now = zero + edges_[number], left = maximum(end - now, zero);
    const auto crosses = [&] {
      constexpr double kTiny = double(std::numeric_limits<T>::min()) / rounding_of(T());
      return bits_of((rounded(v_last, T()) >= threshold) |
                     peak_reaches_double(taus, v, j, v_last, j_last, threshold, kTiny));
    };
    unsigned fires = selection.mask & (bits_of(v >= threshold) | crosses());
    FlowLanes to_end;  // of the whole interval at first
    if (fires && !options_.once) to_end = flow_over(taus, left);
    while (fires) {
      const auto [wait, to_spike] = find_crossing_double(taus, fires, v, j, threshold, left);
      const DoubleVector over = maximum(v * to_spike.em + j * to_spike.k - threshold, zero);
      now = minimum(now + wait, end);
      j *= to_spike.es;
      v = options_.subtract ? v_reset + over : v_reset;
      fires &= ~note(selection, fires, edges_[number], wait, now, (j - threshold) * taus.leak);
      if (!fires) break;
      left = maximum(end - now, zero);
      const LaneMask soon = (to_spike.es > 0.5) & (to_spike.em > 0.5);
      to_end = select(soon, remaining_flow(to_end, to_spike), flow_over(taus, left));
      const LaneMask moved = mask_of(fires);
      v_last = moved ? v * to_end.em + j * to_end.k : v_last;
      j_last = moved ? j * to_end.es : j_last;
      fires &= crosses() | (options_.subtract ? bits_of(v >= threshold) : 0);
    }
    if (options_.once) return;  // who fired is left behind where it was
    selection.scatter(after[0], v_last);
    selection.scatter(after[1], j_last);
  }

  /// Spikes of some of several neurons; who of them is no longer simulated.
  unsigned note(const LaneSelection& selection, unsigned who, double begin, DoubleVector wait, DoubleVector now,
                DoubleVector slope) {
    alignas(64) double waits[kDoubleLanes], times[kDoubleLanes], slopes[kDoubleLanes];
    store<double>(waits, wait);
    store<double>(times, now);
    store<double>(slopes, slope);
    unsigned finished = 0;
    for (; who; who &= who - 1) {
      const int n = __builtin_ctz(who), lane = selection.lane[n];
      const Index place = neuron_index_[first_ + lane];
      std::int32_t& count = spikes_.count[place];
      if (count < options_.max_spikes) {
        spikes_.time[place * options_.max_spikes + count] = behind(begin, waits[n], times[n]);
        spikes_.slope[place * options_.max_spikes + count] = T(slopes[n]);
      }
      ++count;
      if (options_.once || count >= options_.max_counted) {
        finished |= 1u << n;
        leave(lane);
      }
    }
    return finished;
  }

  /// A spike's time. What arrives at the very time of a spike is taken to come after it, so that one
  /// that comes after an arrival must not be rounded to when that comes.
  static T behind(double arrival, double wait, double at) {
    const T time = T(at), before = T(arrival);
    constexpr T kNever = std::numeric_limits<T>::infinity();
    return wait > 0 && time <= before ? std::nextafter(before, kNever) : time;
  }

  /// A neuron is left behind where it is.
  void leave(int lane) {
    threshold_[lane] = std::numeric_limits<T>::infinity();
    alive_ &= ~(Bits(1) << lane);
    held_ &= ~(Bits(1) << lane);
  }

  void note_release(int lane, Index place, std::int32_t count, double v, double j) {
    if (count > 0 && count <= options_.max_spikes)
      spikes_.slope_after[place + count - 1] = T(tile_->taus[lane].rate(v, j));
  }

  /// Whether a refractory time is over where something arrives; what moves v at its very end, as far
  /// as rounded times tell, comes after it.
  static bool ends_before(double free, double edge) { return free < edge || (kJumps && T(free) <= T(edge)); }

  /// Whether v is above the threshold or comes to it in an interval, from which it goes to v_end.
  bool jumps_or_comes(int lane, double v, double j, double v_end) const {
    const double threshold = tile_->fires_at[lane];
    if (is_above(lane, v) || is_above(lane, T(v_end))) return true;
    return v < threshold && T(v_end) >= threshold && tile_->taus[lane].rate(threshold, j) > 0;
  }

  static bool crosses(const TimeConstants& taus, double v, double j, double v_end, double j_end,
                      double threshold) {
    // What a state is rounded to counts: one that is found at the threshold fires.
    if (T(v_end) >= threshold) return true;
    constexpr double kTiny = double(std::numeric_limits<T>::min()) / rounding_of(T());
    return has_peak(taus, v, j, v_end, j_end, kTiny) && peak_reaches(taus, v, j, threshold);
  }

  const Population<T>& population_;
  const Options& options_;
  const Intervals<T>& intervals_;
  const Spikes<T>& spikes_;
  const bool closed_;  // a spike's time has a closed form
  const Tile<T, kVectors>* tile_ = nullptr;
  alignas(64) T threshold_[kLanes];  // of whom is still simulated
  Index sample_ = 0, first_ = 0;
  typename Population<T>::NeuronIndex neuron_index_;
  typename Intervals<T>::Edges edges_;
  Bits held_ = 0, alive_ = 0;  // in the refractory time; still simulated
  double free_[kLanes];        // when V is let go
  std::int32_t cause_[kLanes];  // the arrival that moved v to where it is above the threshold
};

/// Spikes. `room`: of the calling thread, which does all of it; null: of its own, all threads help.
template <class T>
void layer_forward(const Population<T>& population, const Options& options, const SortedArrivals<T>& sorted,
                   const Spikes<T>& spikes, Scratch<T>* room = nullptr) {
  if (population.batch == 0 || population.neurons == 0) return;
  Intervals<T> intervals(population, sorted);
  intervals.compute_steps(options.threads, false, room);
  dispatch_tile_width<T>(population.neurons, [&](auto width) {
    constexpr int kVectors = decltype(width)::value;
    constexpr int kLanes = Tile<T, kVectors>::kLanes;
    const Index tiles = (population.neurons + kLanes - 1) / kLanes;
    const TileCache<T, kVectors> shared(population, intervals);
    // what moves j, and it stays, is a box
    const bool boxes = !options.jumps && intervals.taus().ratio == Ratio::kConstantCurrent;
    Array<T> tables(tiles * (population.rows + 1) * kLanes), box_tolerance(boxes ? tiles * kLanes : 0);
    auto table = [&](Index tile) { return tables.data() + tile * (population.rows + 1) * kLanes; };
    ThreadPool::shared().run(tiles, ThreadPool::useful_threads(options.threads, tables.size()), [&](Index n) {
      pack_weights(population, n * kLanes, kLanes, table(n));
      if (boxes) compute_box_tolerances(table(n), population.rows, kLanes, box_tolerance.data() + n * kLanes);
    });
    const Index parts = room ? 1 : std::max<Index>(32, 8 * options.threads);
    const Index wanted = (parts + tiles - 1) / tiles;
    const WorkUnits units{tiles, std::min(wanted, population.batch), population.batch};
    auto unit = [&](auto uniform, auto jumps, auto in_boxes, Index number) {
      constexpr bool kUniform = decltype(uniform)::value, kJumps = decltype(jumps)::value;
      constexpr bool kBoxes = decltype(in_boxes)::value;
      const Index n = units.tile(number), chunk = units.chunk(number), first = n * kLanes;
      Forward<T, kVectors, kUniform, kJumps, kBoxes> forward(population, options, intervals, spikes);
      std::optional<Tile<T, kVectors>> own;
      for (Index b = units.begin(chunk); b < units.begin(chunk + 1); ++b)
        forward.run(shared.tile(n, b % population.positions, own), table(n), box_tolerance.data() + (boxes ? first : 0), b,
                    first);
    };
    ThreadPool::shared().run(units.size(), options.threads, [&](Index number) {
      const std::true_type yes;
      const std::false_type no;
      if (options.jumps)
        intervals.uniform() ? unit(yes, yes, no, number) : unit(no, yes, no, number);
      else if (boxes)
        intervals.uniform() ? unit(yes, no, yes, number) : unit(no, no, yes, number);
      else
        intervals.uniform() ? unit(yes, no, no, number) : unit(no, no, no, number);
    });
  });
}

// ---- spikes that something else fired

/// V' at recorded spikes, V taken to be at its threshold; arrays (batch, neurons, max_spikes).
///
/// j alone says it, and no spike moves j: each neuron's goes from one arrival to the next.
template <class T>
void recorded_slopes(const Population<T>& population, const Options& options, const SortedArrivals<T>& sorted,
                     const T* time, T* slope) {
  const Intervals<T> intervals(population, sorted);
  const Index neurons = population.neurons, slots = options.max_spikes;
  auto lane = [&](Field field, Index neuron) { return population.parameters[field * neurons + neuron]; };
  std::vector<TimeConstants> taus(neurons);
  for (Index n = 0; n < neurons; ++n)
    taus[n] = TimeConstants(lane(kTauMem, n), lane(kTauSyn, n), rounding_of(T()));
  const std::vector<T> nothing(neurons);
  struct Spike {
    std::int32_t next;  // in the same interval
    Index neuron, slot;
  };
  ThreadPool::shared().run(population.batch, options.threads, [&](Index sample) {
    const Index used = intervals.used(sample), first = sample * neurons * slots;
    const auto edges = intervals.edges(sample);
    const auto rows = intervals.rows(sample);
    const T* arrivals = sorted.time + sorted.first(sample);
    std::vector<std::int32_t> heads(used + 1, -1);
    std::vector<Spike> spikes;
    for (Index n = 0; n < neurons; ++n)
      for (Index slot = n * slots; slot < (n + 1) * slots; ++slot) {
        slope[first + slot] = 1;
        const T at = time[first + slot];
        if (!(at < std::numeric_limits<T>::infinity())) continue;
        // what arrives at the very time of a spike comes after it
        const Index number = std::lower_bound(arrivals, arrivals + used, at) - arrivals;
        spikes.push_back({heads[number], n, slot});
        heads[number] = std::int32_t(spikes.size() - 1);
      }
    std::vector<double> j(neurons);
    for (Index n = 0; n < neurons; ++n) j[n] = lane(kCurrent, n);
    for (Index number = 0; number <= used; ++number) {
      if (number > 0) {
        const double wait = edges[number] - edges[number - 1];
        const double common = std::exp(-wait * intervals.taus().synaptic);
        const Index row = rows[number];
        const T* weights = row < population.rows ? population.weight + row * neurons : nothing.data();
        for (Index n = 0; n < neurons; ++n)
          j[n] = j[n] * (intervals.uniform() ? common : std::exp(-wait * taus[n].synaptic)) +
                 weights[n];
      }
      for (std::int32_t at = heads[number]; at >= 0; at = spikes[at].next) {
        const auto [next, n, slot] = spikes[at];
        const double wait = time[first + slot] - edges[number];
        slope[first + slot] =
            T(taus[n].rate(lane(kThreshold, n), j[n] * std::exp(-wait * taus[n].synaptic)));
      }
    }
  });
}

}  // namespace native
