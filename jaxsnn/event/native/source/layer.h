// A population without feedback: what jaxsnn/event/forward/layer.py and adjoint/layer_adjoint.py
// do, a tile of neurons of one sample at a time.
//
// A tile's state stays in registers while it walks through the sample's arrivals in the order of
// time. Where all neurons have the same time constants an interval's coefficients are computed once
// for all of them. In each interval a bound says in which lanes a crossing is possible: as if j did
// not fall. Those few are settled one by one, in double precision. Backwards the tile carries two
// costates for each neuron through the same intervals from the last one that matters to the first,
// and adds a row to the weights' gradient at each arrival; spikes are again settled lane by lane.

#pragma once

#include "cubalif.h"

namespace native {

/// Fields of the lanes, in the order in which they come.
enum Field { kThreshold, kReset, kStart, kCurrent, kTauMem, kTauSyn, kFields };
constexpr Index kLevels = kTauMem;  // how many of them are no time constants; they are the first

struct Options {
  Index max_spikes = 1;
  Index counted = 1;        // spikes after which a neuron is no longer simulated
  bool once = false;        // stops after its first spike
  bool subtract = false;    // a reset keeps the overshoot
  double refractory = 0;    // seconds
  double min_slope = 0;     // fraction of (threshold - v_reset) / tau_mem
  bool jumps = false;       // an arrival moves v, and not j
  Index threads = 1;

  /// A spike assigns v whatever it was, and does not take the same from it always.
  bool assigns() const { return refractory > 0 || (jumps && !subtract); }
};

/// What the kernels are given; lists may be one for all samples.
template <class T>
struct Given {
  Index batch, arrivals, rows, neurons, positions;
  const T* weight;  // (rows, neurons)
  const T* lanes;   // (fields, positions, neurons)
  T t_end;
  bool strict = false;  // an arrival has to move v above the threshold, not to it
  /// Of a sample all positions of a neuron stand one behind the other; else list by list.
  bool by_neuron = false;

  /// Where the neurons of a list stand among those of all lists.
  struct Places {
    Index begin = 0, step = 1;

    Index operator[](Index neuron) const { return begin + neuron * step; }
  };

  Places places(Index list) const {
    if (!by_neuron) return {list * neurons, 1};
    return {list / positions * positions * neurons + list % positions, positions};
  }
};

/// Arrivals in order; arrays (batch, arrivals), of which the first `used` of each sample count, or
/// lists one behind the other: list b from `begin[b]` on.
template <class T>
struct Ordered {
  const T* time;
  const std::int32_t* row;  // `rows` where it is none
  const std::int32_t* slot;
  const std::int32_t* used;
  Index arrivals;
  const Index* begin = nullptr;

  Index first(Index list) const { return begin ? begin[list] : list * arrivals; }
  Index count(Index list) const {
    // what comes from outside is looked at: it must lie in the arrays
    return begin ? begin[list + 1] - begin[list] : std::clamp<Index>(used[list], 0, arrivals);
  }
};

/// An interval's coefficients for all lanes; `bound` is 1 - em: what j would do if it did not fall.
template <class T>
struct Step {
  T em, es, k, bound;
};

template <class T>
struct StepBy {
  T em_mem, k_mem, es_syn, k_syn;
};

constexpr double rounding_of(float) { return 0x1p-23; }
constexpr double rounding_of(double) { return 0x1p-52; }
/// How exactly a root is wanted: well beyond the digits of the result.
constexpr double tolerance_of(float) { return 0x1p-32; }
constexpr double tolerance_of(double) { return 0x1p-52; }

// ---- arrivals in order

/// What a thread sorts in.
template <class T>
struct Sorting {
  std::vector<Entry<T>> order, spare;
  std::vector<std::int32_t> rest;
};

template <class T>
Sorting<T>& sorting() {
  thread_local Sorting<T> own;
  return own;
}

/// Arrivals of all samples in order, those before t_end only.
template <class T>
void put_in_order(const Given<T>& given, const T* time, const std::int32_t* row, bool shared_row,
                  Index threads, T* out_time, std::int32_t* out_row, std::int32_t* out_slot,
                  std::int32_t* used) {
  const Index arrivals = given.arrivals;
  auto one = [&](Index sample) {
    auto& [order, spare, unused] = sorting<T>();
    const T* times = time + sample * arrivals;
    const std::int32_t* rows = shared_row ? row : row + sample * arrivals;
    part_entries(times, arrivals, given.t_end, order, unused);
    sort_entries<T>(order, spare);
    const Index count = order.size(), first = sample * arrivals;
    for (Index n = 0; n < count; ++n) {
      const std::int32_t slot = order[n].slot, of_slot = rows[slot];
      out_time[first + n] = times[slot];
      out_row[first + n] = of_slot >= 0 && of_slot < given.rows ? of_slot : given.rows;
      out_slot[first + n] = slot;
    }
    std::fill(out_time + first + count, out_time + first + arrivals,
              std::numeric_limits<T>::infinity());
    std::fill(out_row + first + count, out_row + first + arrivals, std::int32_t(given.rows));
    std::copy_n(unused.begin(), arrivals - count, out_slot + first + count);
    used[sample] = count;
  };
  Pool::shared().run(given.batch, threads, one);
}

/// The slots of the earliest `room` events of each sample, in order; unused slots come last.
template <class T>
void earliest(const T* time, Index batch, Index events, Index room, Index threads,
              std::int32_t* place) {
  Pool::shared().run(batch, threads, [&](Index sample) {
    auto& [order, spare, unused] = sorting<T>();
    part_entries(time + sample * events, events, std::numeric_limits<T>::infinity(), order, unused);
    sort_entries<T>(order, spare);
    const Index used = std::min<Index>(order.size(), room);
    std::int32_t* to = place + sample * room;
    for (Index n = 0; n < used; ++n) to[n] = order[n].slot;
    std::copy_n(unused.begin(), room - used, to + used);
  });
}

// ---- intervals

/// Memory of one thread, which it keeps from one sample to the next: the system takes longer to clear
/// new pages than it takes to fill them.
template <class T>
struct Room {
  Array<T> time, by_time, drive;
  Array<std::int32_t> row, slot;
  Array<Step<T>> steps;
  Array<StepBy<T>> steps_by;

  /// The memory of the calling thread, in use; what is too much to be kept is given back then.
  class Kept {
   public:
    Room& operator*() { return own(); }
    ~Kept() {
      if (own().bytes() > kMost) own() = Room();
    }

   private:
    static constexpr Index kMost = Index(1) << 25;
    static Room& own() {
      thread_local Room room;
      return room;
    }
  };

 private:
  Index bytes() const {
    return sizeof(T) * (time.size() + by_time.size() + drive.size()) + 4 * (row.size() + slot.size()) +
           sizeof(Step<T>) * steps.size() + sizeof(StepBy<T>) * steps_by.size();
  }
};

/// An array that has room for so many numbers, whatever it holds.
template <class Number>
Number* with_room(Array<Number>& array, Index size) {
  if (array.size() < size) {
    array = Array<Number>();
    array = Array<Number>(size + size / 8);
  }
  return array.data();
}

/// Intervals of all samples: number 0 lies before the first arrival, number n follows arrival n - 1.
template <class T>
class Intervals {
  using V = Vector<T>;

 public:
  Intervals(const Given<T>& given, const Ordered<T>& ordered)
      : given_(given), ordered_(ordered), offset_(given.batch + 1) {
    offset_[0] = 0;
    for (Index b = 0; b < given.batch; ++b) {
      offset_[b + 1] = offset_[b] + ordered.count(b) + 1;
    }
    const T* mem = given.lanes + kTauMem * given.positions * given.neurons;
    const T* syn = given.lanes + kTauSyn * given.positions * given.neurons;
    const Index lanes = given.positions * given.neurons;
    uniform_ = true;
    for (Index n = 1; n < lanes; ++n)
      uniform_ = uniform_ && mem[n] == mem[0] && syn[n] == syn[0];
    for (Index field = 0; field < kFields; ++field) {
      const T* of = given.lanes + field * lanes;
      for (Index n = given.neurons; n < lanes; ++n) alike_ = alike_ && of[n] == of[n - given.neurons];
    }
    if (lanes) taus_ = Taus(mem[0], syn[0], rounding_of(T()));
  }

  bool uniform() const { return uniform_; }
  /// All positions have the same lanes.
  bool alike() const { return alike_; }
  const Taus& taus() const { return taus_; }
  Index used(Index sample) const { return offset_[sample + 1] - offset_[sample] - 1; }

  /// Where the intervals of a sample begin, seconds; number used + 1: where the last one ends.
  class Edges {
   public:
    Edges() = default;
    Edges(const T* time, Index count, T t_end) : time_(time), count_(count), t_end_(t_end) {}

    double operator[](Index number) const {
      return number == 0 ? 0.0 : double(number > count_ ? t_end_ : time_[number - 1]);
    }

   private:
    const T* time_;
    Index count_;
    T t_end_;
  };

  Edges edges(Index sample) const {
    return {ordered_.time + ordered_.first(sample), used(sample), given_.t_end};
  }
  double edge(Index sample, Index number) const { return edges(sample)[number]; }

  /// The rows of the table that arrive at the begins of a sample's intervals.
  class Rows {
   public:
    Rows(const std::int32_t* row, Index count, Index none)
        : row_(row), count_(count), none_(std::uint32_t(none)) {}

    /// Of an interval; any other number than that of a row: that of the row of zeros.
    Index operator[](Index number) const {
      return number == 0 ? none_ : std::min(std::uint32_t(row_[number - 1]), none_);
    }
    /// The same, of an interval that there may be none of.
    Index ahead(Index number) const {
      return (*this)[std::clamp<Index>(number, 0, count_)];
    }

   private:
    const std::int32_t* row_;
    Index count_;
    std::uint32_t none_;
  };

  Rows rows(Index sample) const {
    return {ordered_.row + ordered_.first(sample), used(sample), given_.rows};
  }
  Index row(Index sample, Index number) const { return rows(sample)[number]; }

  const Step<T>* steps(Index sample) const { return steps_ + offset_[sample]; }
  const StepBy<T>* steps_by(Index sample) const { return steps_by_ + offset_[sample]; }

  /// The coefficients of all intervals, where they are the same for all lanes.
  ///
  /// `room`: for them; null: in memory of their own.
  void prepare(Index threads, bool derivatives, Room<T>* room = nullptr) {
    if (!uniform_) return;
    Room<T>& of = room ? *room : own_;
    steps_ = with_room(of.steps, offset_[given_.batch]);
    if (derivatives) steps_by_ = with_room(of.steps_by, offset_[given_.batch]);
    auto one = [&](Index sample) {
      const Index count = used(sample) + 1;
      Step<T>* steps = steps_ + offset_[sample];
      const T* times = ordered_.time + ordered_.first(sample);
      const T stretch = 1 + 4 * std::numeric_limits<T>::epsilon();
      const T slow = T(taus_.slow), gap = T(taus_.gap), gain = T(taus_.gain);
      const T to_ratio = taus_.gap > 0 ? T(1 / taus_.gap) : T(0);
      const V zero = {};
      double begin = 0;
      for (Index first = 0; first < count; first += kWidth<T>) {
        const Index block = std::min<Index>(kWidth<T>, count - first);
        V t = {};
        for (Index n = 0; n < block; ++n) {
          const double end = first + n + 1 < count ? double(times[first + n]) : given_.t_end;
          t[n] = T(end - begin);
          begin = end;
        }
        t = t > zero ? t : zero;
        // of what is asked: v em + j k and j es, and 1 - em for the bound
        // tau_mem = 2 tau_syn: the same twice
        const V fallen = expm1_of(-t * slow), bend = gap == slow ? fallen : expm1_of(-t * gap);
        const V slower = 1 + fallen, faster = slower + slower * bend;
        const V ratio = bend < zero ? -bend * to_ratio : t;
        const V k = slower * ratio * gain;
        const V em = taus_.mem_longer ? slower : faster;
        const V es = taus_.mem_longer ? faster : slower;
        const V fall = (taus_.mem_longer ? -fallen : -(fallen + bend + fallen * bend)) * stretch;
        const V bound = fall > k ? fall : k;
        for (Index n = 0; n < block; ++n)
          // k is never larger than the bound; rounding must not make it so
          steps[first + n] = {em[n], es[n], k[n], bound[n]};
        if (derivatives)
          for (Index n = 0; n < block; ++n) {
            const FlowBy by = decay_by(taus_, t[n], {em[n], es[n], k[n]});
            steps_by_[offset_[sample] + first + n] = {T(by.em_mem), T(by.k_mem), T(by.es_syn),
                                                      T(by.k_syn)};
          }
      }
    };
    Pool::shared().run(given_.batch, threads, one);
  }

 private:
  const Given<T>& given_;
  const Ordered<T>& ordered_;
  Array<Index> offset_;
  Room<T> own_;
  Step<T>* steps_ = nullptr;
  StepBy<T>* steps_by_ = nullptr;
  Taus taus_;
  bool uniform_ = true, alike_ = true;
};

// ---- tiles

/// Neurons next to each other, of one position, padded with such as never fire.
template <class T, int kVectors>
struct Tile {
  static constexpr int kLanes = kVectors * kWidth<T>;
  using V = Vector<T>;

  alignas(64) T threshold[kLanes];
  alignas(64) double slow[kLanes], gap[kLanes], gain[kLanes], syn_fast[kLanes];
  double v_reset[kLanes], v_start[kLanes], j_start[kLanes], fires_at[kLanes];
  Taus taus[kLanes];
  bool above[kLanes];  // it starts there
  int count;
  bool positive;  // all thresholds are
  /// A maximum of v reaches the threshold only if (v + j)^2 >= close j threshold: 4, where that is
  /// so, and less by what it is rounded to; 0 where it is not told like this.
  T close;

  Tile(const Given<T>& given, Index position, Index first, bool uniform, const Taus& common) {
    count = int(std::min<Index>(kLanes, given.neurons - first));
    positive = true;
    close = T(4 - 256 * rounding_of(T()));
    const Index step = given.positions * given.neurons;
    for (int lane = 0; lane < kLanes; ++lane) {
      const T* of = given.lanes + position * given.neurons + first + std::min(lane, count - 1);
      threshold[lane] = lane < count ? of[kThreshold * step] : std::numeric_limits<T>::infinity();
      fires_at[lane] = threshold[lane];
      v_reset[lane] = of[kReset * step];
      v_start[lane] = lane < count ? of[kStart * step] : 0;
      j_start[lane] = lane < count ? of[kCurrent * step] : 0;
      above[lane] = given.strict ? v_start[lane] > threshold[lane] : v_start[lane] >= threshold[lane];
      positive = positive && threshold[lane] > 0;
      taus[lane] = uniform ? common : Taus(of[kTauMem * step], of[kTauSyn * step],
                                           rounding_of(T()));
      if (taus[lane].ratio != Ratio::kDouble) close = 0;
      slow[lane] = taus[lane].slow;
      gap[lane] = taus[lane].gap;
      gain[lane] = taus[lane].gain;
      syn_fast[lane] = taus[lane].mem_longer ? 1 : 0;
    }
  }

  /// The coefficients of a vector of lanes whose time constants differ.
  void own_step(int vector, double t, V& em, V& es, V& k, V& bound) const {
    t = std::max(t, 0.0);
    alignas(64) T out[4][kWidth<T>];
    for (int half = 0; half < kWidth<T>; half += 8) {
      const int lane = vector * kWidth<T> + half;
      DoubleVector rate, apart, to_mem, is_long;
      std::memcpy(&rate, slow + lane, sizeof(rate));
      std::memcpy(&apart, gap + lane, sizeof(apart));
      std::memcpy(&to_mem, gain + lane, sizeof(to_mem));
      std::memcpy(&is_long, syn_fast + lane, sizeof(is_long));
      const DoubleVector zero = {}, fallen = expm1_of(-t * rate), bend = expm1_of(-t * apart);
      const DoubleVector slower = 1 + fallen, faster = slower + slower * bend;
      const DoubleVector ratio = bend < zero ? -bend / apart : zero + t;
      const DoubleVector of_k = slower * ratio * to_mem;
      const DoubleVector of_em = is_long > zero ? slower : faster;
      const DoubleVector of_es = is_long > zero ? faster : slower;
      const DoubleVector fall = is_long > zero ? -fallen : -(fallen + bend + fallen * bend);
      for (int n = 0; n < 8; ++n) {
        out[0][half + n] = T(of_em[n]);
        out[1][half + n] = T(of_es[n]);
        out[2][half + n] = T(of_k[n]);
        out[3][half + n] = std::max(T(fall[n]) * (1 + 2 * std::numeric_limits<T>::epsilon()),
                                    T(of_k[n]));
      }
    }
    std::memcpy(&em, out[0], sizeof(em));
    std::memcpy(&es, out[1], sizeof(es));
    std::memcpy(&k, out[2], sizeof(k));
    std::memcpy(&bound, out[3], sizeof(bound));
  }

  /// The derivatives of the coefficients of a vector of lanes.
  void own_step_by(int vector, double t, V& em_mem, V& k_mem, V& es_syn, V& k_syn) const {
    for (int n = 0; n < kWidth<T>; ++n) {
      const Taus& own = taus[vector * kWidth<T> + n];
      FlowBy by = decay_by(own, std::max(t, 0.0), decay(own, std::max(t, 0.0)));
      em_mem[n] = T(by.em_mem);
      k_mem[n] = T(by.k_mem);
      es_syn[n] = T(by.es_syn);
      k_syn[n] = T(by.k_syn);
    }
  }
};

/// A tile's columns of the weights, and a row of zeros behind them.
template <class T>
void pack(const Given<T>& given, Index first, int lanes, T* table) {
  const Index count = std::min<Index>(lanes, given.neurons - first);
  for (Index row = 0; row < given.rows; ++row) {
    std::copy_n(given.weight + row * given.neurons + first, count, table + row * lanes);
    std::fill(table + row * lanes + count, table + (row + 1) * lanes, T(0));
  }
  std::fill_n(table + given.rows * lanes, lanes, T(0));
}

/// Rows of a table are asked for so many intervals before they are needed: they may be far away.
constexpr Index kAhead = 3;

template <class T, int kVectors>
inline void fetch(const T* row) {
  for (int q = 0; q < kVectors; ++q) __builtin_prefetch(row + q * kWidth<T>);
}

// ---- forward

/// Spikes; arrays (batch, neurons, max_spikes), count (batch, neurons). `slope_after` is written
/// where a spike assigns v, `cause` where arrivals move it: the number of the arrival, in order and
/// from 1 on, that made it fire, or 0.
template <class T>
struct Spikes {
  T* time;
  T* slope;
  T* slope_after;
  std::int32_t* count;
  std::int32_t* cause = nullptr;
};

/// One tile of one sample through all its arrivals.
template <class T, int kVectors, bool kUniform, bool kJumps>
class Forward {
  using V = Vector<T>;
  using Bits = std::uint64_t;
  static constexpr int kLanes = Tile<T, kVectors>::kLanes;

 public:
  Forward(const Given<T>& given, const Options& options, const Intervals<T>& intervals,
          const Spikes<T>& spikes)
      : given_(given), options_(options), intervals_(intervals), spikes_(spikes) {}

  void run(Tile<T, kVectors>& tile, const T* table, Index sample, Index first) {
    sample_ = sample;
    edges_ = intervals_.edges(sample);
    first_ = first;
    tile_ = &tile;
    held_ = 0;
    alive_ = tile.count == 64 ? ~Bits(0) : (Bits(1) << tile.count) - 1;
    places_ = given_.places(sample);
    fill(spikes_.time, options_.max_spikes, std::numeric_limits<T>::infinity());
    fill(spikes_.slope, options_.max_spikes, T(1));
    if (options_.assigns()) fill(spikes_.slope_after, options_.max_spikes, T(0));
    if (kJumps) fill(spikes_.cause, options_.max_spikes, 0);
    fill(spikes_.count, 1, 0);
    std::fill_n(cause_, kLanes, 0);
    for (int lane = 0; lane < kLanes; ++lane) tile.threshold[lane] = T(tile.fires_at[lane]);
    tile.positive ? walk<true>(table) : walk<false>(table);
  }

 private:
  /// What there is of each of the tile's neurons, `each` times.
  template <class Number>
  void fill(Number* numbers, Index each, Number value) {
    if (places_.step == 1) {
      std::fill_n(numbers + places_[first_] * each, tile_->count * each, value);
      return;
    }
    for (int lane = 0; lane < tile_->count; ++lane)
      std::fill_n(numbers + places_[first_ + lane] * each, each, value);
  }

  template <bool kPositive>
  void walk(const T* table) {
    Tile<T, kVectors>& tile = *tile_;
    V v[kVectors], j[kVectors], threshold[kVectors];
    for (int lane = 0; lane < kLanes; ++lane) {
      reinterpret_cast<T*>(v)[lane] = T(tile.v_start[lane]);
      reinterpret_cast<T*>(j)[lane] = T(tile.j_start[lane]);
    }
    std::memcpy(threshold, tile.threshold, sizeof(threshold));
    const Index used = intervals_.used(sample_);
    const auto rows = intervals_.rows(sample_);
    const Step<T>* steps = kUniform ? intervals_.steps(sample_) : nullptr;
    Bits starts = 0;
    for (int lane = 0; lane < tile.count; ++lane) starts |= Bits(tile.above[lane]) << lane;
    for (Index number = 0; number <= used; ++number) {
      const T* weights = table + rows[number] * kLanes;
      fetch<T, kVectors>(table + rows.ahead(number + kAhead) * kLanes);
      V v_now[kVectors], v_end[kVectors], j_now[kVectors], j_end[kVectors];
      Bits hit = 0;
      for (int q = 0; q < kVectors; ++q) {
        V arriving, em, es, k, bound;
        std::memcpy(&arriving, weights + q * kWidth<T>, sizeof(arriving));
        coefficients(tile, steps, number, q, em, es, k, bound);
        v_now[q] = kJumps ? v[q] + arriving : v[q];
        j_now[q] = kJumps ? j[q] : j[q] + arriving;
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
        for (Bits left = (hit | held_ | starts) & alive_; left; left &= left - 1) {
          const int lane = __builtin_ctzll(left);
          if (!kJumps || arrive(lane, number, before[2][lane], before[0][lane], after[0][lane]))
            settle(lane, number, before[0][lane], before[1][lane], after[0][lane], after[1][lane]);
          // into the vectors as they are: such as are read behind single numbers wait for these
          for (int q = 0; q < kVectors; ++q) {
            put<T>(v_end[q], lane - q * kWidth<T>, after[0][lane]);
            put<T>(j_end[q], lane - q * kWidth<T>, after[1][lane]);
          }
        }
        starts = 0;
        if (!alive_) return;
        if (alive_ != alive) std::memcpy(threshold, tile.threshold, sizeof(threshold));
      }
      for (int q = 0; q < kVectors; ++q) {
        v[q] = v_end[q];
        j[q] = j_end[q];
      }
    }
  }

  void coefficients(const Tile<T, kVectors>& tile, const Step<T>* steps, Index number, int q, V& em,
                    V& es, V& k, V& bound) const {
    if constexpr (kUniform) {
      const Step<T>& step = steps[number];
      em = spread(step.em);
      es = spread(step.es);
      k = spread(step.k);
      bound = spread(step.bound);
    } else {
      const double t = edges_[number + 1] - edges_[number];
      tile.own_step(q, t, em, es, k, bound);
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
      const V threshold = load<T>(tile_->threshold + at), both = v + j, zero = {};
      const V size = (v < zero ? -v : v) + j;
      found |= Bits(at_least(v_end, threshold) | at_least(v, threshold) |
                    (at_least(v_end + kSlack * size, load<T>(after[1] + at)) &
                     at_least(both * both + kTiny, tile_->close * j * threshold)))
               << at;
    }
    return found;
  }

  bool is_above(int lane, double v) const {
    return given_.strict ? v > tile_->fires_at[lane] : v >= tile_->fires_at[lane];
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
    const Taus& taus = tile_->taus[lane];
    const double threshold = tile_->fires_at[lane], edge = edges_[number + 1];
    double at = edges_[number];
    const Index place = places_[first_ + lane] * options_.max_spikes;
    std::int32_t& count = spikes_.count[places_[first_ + lane]];
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
      const Flow flow = decay(taus, left);
      v_last = v * flow.em + j * flow.k;
      j_last = j * flow.es;
    }
    bool fires = kJumps ? jumps_or_comes(lane, v, j, v_last)
                        : v >= threshold || crosses(taus, v, j, v_last, j_last, threshold);
    // To the interval's end: the flow until then is known before it is known when the neuron fires.
    Flow to_end;
    if (!kJumps && fires) to_end = decay(taus, std::max(edge - at, 0.0));
    while (fires) {
      const double room = std::max(edge - at, 0.0);
      const auto [wait, to_spike] = v >= threshold
                                        ? Crossing{0.0, {1, 1, 0}}
                                        : solve(taus, v, j, threshold, room, T(v_last) >= threshold,
                                                tolerance_of(T()));
      const double v_there = v * to_spike.em + j * to_spike.k;
      j *= to_spike.es;
      at += wait;
      if (count < options_.max_spikes) {
        spikes_.time[place + count] = T(at);
        spikes_.slope[place + count] = T(taus.rate(threshold, j));
        if (kJumps && v >= threshold) {
          spikes_.slope[place + count] = std::numeric_limits<T>::infinity();
          spikes_.cause[place + count] = cause_[lane];
        }
      }
      ++count;
      v = tile_->v_reset[lane];
      if (kJumps && options_.refractory == 0 && options_.assigns())
        note_release(lane, place, count, v, j);
      const bool finished = options_.once || count >= options_.counted;
      if (finished) {
        // it is left behind where it is
        tile_->threshold[lane] = std::numeric_limits<T>::infinity();
        alive_ &= ~(Bits(1) << lane);
        held_ &= ~(Bits(1) << lane);
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
      to_end = soon ? rest_of(to_end, to_spike) : decay(taus, std::max(edge - at, 0.0));
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

  static bool crosses(const Taus& taus, double v, double j, double v_end, double j_end,
                      double threshold) {
    // What a state is rounded to counts: one that is found at the threshold fires.
    if (T(v_end) >= threshold) return true;
    constexpr double kTiny = double(std::numeric_limits<T>::min()) / rounding_of(T());
    return peaks(taus, v, j, v_end, j_end, kTiny) && peak_reaches(taus, v, j, threshold);
  }

  const Given<T>& given_;
  const Options& options_;
  const Intervals<T>& intervals_;
  const Spikes<T>& spikes_;
  Tile<T, kVectors>* tile_ = nullptr;
  Index sample_ = 0, first_ = 0;
  typename Given<T>::Places places_;
  typename Intervals<T>::Edges edges_;
  Bits held_ = 0, alive_ = 0;  // in the refractory time; still simulated
  double free_[kLanes];        // when V is let go
  std::int32_t cause_[kLanes];  // the arrival that moved v to where it is above the threshold
};

/// Samples of a part of a batch, and tiles: what one thread does at a time.
struct Units {
  Index tiles, chunks, batch;
  Index size() const { return tiles * chunks; }
  Index tile(Index unit) const { return unit / chunks; }  // one table after the other
  Index chunk(Index unit) const { return unit % chunks; }
  Index number(Index tile, Index chunk) const { return tile * chunks + chunk; }
  Index begin(Index chunk) const { return batch * chunk / chunks; }
};

/// Calls with a tile's number of vectors.
template <class T, class Call>
void by_width(Index neurons, Call&& call) {
  if (neurons <= kWidth<T>) return call(std::integral_constant<int, 1>());
  if (neurons <= 2 * kWidth<T>) return call(std::integral_constant<int, 2>());
  return call(std::integral_constant<int, 4>());
}

/// Spikes. `room`: of the calling thread, which does all of it; null: of its own, all threads help.
template <class T>
void layer_forward(const Given<T>& given, const Options& options, const Ordered<T>& ordered,
                   const Spikes<T>& spikes, Room<T>* room = nullptr) {
  if (given.batch == 0 || given.neurons == 0) return;
  Intervals<T> intervals(given, ordered);
  intervals.prepare(options.threads, false, room);
  by_width<T>(given.neurons, [&](auto width) {
    constexpr int kVectors = decltype(width)::value;
    constexpr int kLanes = Tile<T, kVectors>::kLanes;
    const Index tiles = (given.neurons + kLanes - 1) / kLanes;
    Array<T> tables(tiles * (given.rows + 1) * kLanes);
    auto table = [&](Index tile) { return tables.data() + tile * (given.rows + 1) * kLanes; };
    Pool::shared().run(tiles, options.threads,
                       [&](Index n) { pack(given, n * kLanes, kLanes, table(n)); });
    const Index parts = room ? 1 : std::max<Index>(96, 8 * options.threads);
    const Index wanted = (parts + tiles - 1) / tiles;
    const Units units{tiles, std::min(wanted, given.batch), given.batch};
    auto unit = [&](auto uniform, auto jumps, Index number) {
      constexpr bool kUniform = decltype(uniform)::value, kJumps = decltype(jumps)::value;
      const Index n = units.tile(number), chunk = units.chunk(number), first = n * kLanes;
      Forward<T, kVectors, kUniform, kJumps> forward(given, options, intervals, spikes);
      Tile<T, kVectors> tile(given, 0, first, kUniform, intervals.taus());
      for (Index b = units.begin(chunk); b < units.begin(chunk + 1); ++b) {
        if (!intervals.alike())
          tile = Tile<T, kVectors>(given, b % given.positions, first, kUniform, intervals.taus());
        forward.run(tile, table(n), b, first);
      }
    };
    Pool::shared().run(units.size(), options.threads, [&](Index number) {
      const std::true_type yes;
      const std::false_type no;
      if (options.jumps)
        intervals.uniform() ? unit(yes, yes, number) : unit(no, yes, number);
      else
        intervals.uniform() ? unit(yes, no, number) : unit(no, no, number);
    });
  });
}

// ---- spikes that something else fired

/// V' at recorded spikes, V taken to be at its threshold; arrays (batch, neurons, max_spikes).
///
/// j alone says it, and no spike moves j: each neuron's goes from one arrival to the next.
template <class T>
void recorded_slopes(const Given<T>& given, const Options& options, const Ordered<T>& ordered,
                     const T* time, T* slope) {
  const Intervals<T> intervals(given, ordered);
  const Index neurons = given.neurons, slots = options.max_spikes;
  auto lane = [&](Field field, Index neuron) { return given.lanes[field * neurons + neuron]; };
  std::vector<Taus> taus(neurons);
  for (Index n = 0; n < neurons; ++n)
    taus[n] = Taus(lane(kTauMem, n), lane(kTauSyn, n), rounding_of(T()));
  const std::vector<T> nothing(neurons);
  struct Spike {
    std::int32_t next;  // in the same interval
    Index neuron, slot;
  };
  Pool::shared().run(given.batch, options.threads, [&](Index sample) {
    const Index used = intervals.used(sample), first = sample * neurons * slots;
    const auto edges = intervals.edges(sample);
    const auto rows = intervals.rows(sample);
    const T* arrivals = ordered.time + ordered.first(sample);
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
        const T* weights = row < given.rows ? given.weight + row * neurons : nothing.data();
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

// ---- backward

/// Spikes as they were found, and dL/dt of each.
template <class T>
struct Found {
  const T* time;
  const T* slope;
  const T* slope_after;
  const T* cotangent;
  const std::int32_t* cause = nullptr;
};

/// Gradients; what is not asked for is null.
template <class T>
struct Gradients {
  T* weight;     // (rows, neurons)
  T* lanes;      // (fields, positions, neurons)
  Index fields;  // kFields, or kLevels: none by time constants
  T* time;       // (batch, arrivals), by slot

  bool of_taus() const { return lanes && fields == kFields; }
};

/// One tile of one sample back through its arrivals.
template <class T, int kVectors, bool kUniform, bool kOfTaus>
class Backward {
  using V = Vector<T>;
  using Bits = std::uint64_t;
  static constexpr int kLanes = Tile<T, kVectors>::kLanes;

 public:
  Backward(const Given<T>& given, const Options& options, const Intervals<T>& intervals,
           const Ordered<T>& ordered, const Found<T>& found)
      : given_(given),
        options_(options),
        intervals_(intervals),
        ordered_(ordered),
        found_(found) {}

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
    places_ = given_.places(sample);
    own_ = own;
    by_time_ = by_time;
    collect();
    if (last_ < 0) return;  // nothing fires: nothing counts
    if (by_time)
      walk<true>(table, by_weight, by_time);
    else
      walk<false>(table, by_weight, by_time);
  }

 private:
  /// A spike, or the end of a refractory time behind it.
  struct Event {
    std::int32_t next;  // in the same interval, earlier of the same lane
    std::int16_t lane;
    bool release;
    std::int32_t slot;
    double time;
  };

  struct Costate {
    double v = 0, j = 0;              // P
    double v_mem = 0, j_mem = 0, j_syn = 0;  // its derivatives by the time constants
  };

  /// What happens, by intervals.
  void collect() {
    const Index used = intervals_.used(sample_), slots = options_.max_spikes;
    heads_.assign(used + 1, -1);
    events_.clear();
    last_ = -1;
    const T* times = ordered_.time + ordered_.first(sample_);
    for (int lane = 0; lane < tile_->count; ++lane) {
      const Index place = places_[first_ + lane] * slots;
      for (Index slot = 0; slot < slots; ++slot) {
        const T time = found_.time[place + slot];
        if (!(time < std::numeric_limits<T>::infinity())) break;
        // wanted when its turn comes
        __builtin_prefetch(found_.slope + place + slot);
        __builtin_prefetch(found_.cotangent + place + slot);
        if (options_.jumps && std::isinf(found_.slope[place + slot]))
          // what arrives at that time has made it fire, and comes before it
          put(std::upper_bound(times, times + used, time) - times, lane, slot, false, time);
        else
          add(times, used, lane, slot, false, time);
        const bool another =
            slot + 1 < slots && found_.time[place + slot + 1] < std::numeric_limits<T>::infinity();
        if (options_.refractory > 0 && another)
          add(times, used, lane, slot, true, released(double(time) + options_.refractory));
      }
    }
  }

  void add(const T* times, Index used, int lane, Index slot, bool release, double time) {
    // what arrives at the very time of a spike comes after it
    put(earlier(times, used, time), lane, slot, release, time);
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
      const unsigned later = at_least(load<T>(times + first), spread(T(time)));
      return first + __builtin_ctz(later | 1u << kWidth<T>);
    }
    for (; left > 0; --left) found += times[found] < time;
    return found;
  }

  /// When V is let go, as far as it is told from when something arrives that moves V.
  double released(double time) const { return options_.jumps ? double(T(time)) : time; }

  void put(Index number, int lane, Index slot, bool release, double time) {
    events_.push_back({heads_[number], std::int16_t(lane), release, std::int32_t(slot), time});
    heads_[number] = std::int32_t(events_.size() - 1);
    last_ = std::max(last_, number);
  }

  template <bool kTime>
  void walk(const T* table, T* by_weight, T* by_time) {
    const Tile<T, kVectors>& tile = *tile_;
    V p_v[kVectors] = {}, p_j[kVectors] = {};
    V v_mem[kVectors] = {}, j_mem[kVectors] = {}, j_syn[kVectors] = {};  // derivatives of P
    V by_mem[kVectors] = {}, by_syn[kVectors] = {};
    const bool jumps = options_.jumps;
    V leak[kVectors], synaptic[kVectors];
    for (int lane = 0; lane < kLanes; ++lane) {
      reinterpret_cast<T*>(leak)[lane] = T(tile.taus[lane].leak);
      reinterpret_cast<T*>(synaptic)[lane] = T(tile.taus[lane].synaptic);
    }
    std::fill_n(free_v_, kLanes, 0.0);
    std::fill_n(free_mem_, kLanes, 0.0);
    const Step<T>* steps = kUniform ? intervals_.steps(sample_) : nullptr;
    const StepBy<T>* steps_by = kUniform && kOfTaus ? intervals_.steps_by(sample_) : nullptr;
    const auto rows = intervals_.rows(sample_);
    for (Index number = last_; number >= 0; --number) {
      fetch<T, kVectors>(by_weight + rows.ahead(number - kAhead) * kLanes);
      const bool happens = heads_[number] >= 0;
      alignas(64) T later[5][kLanes];
      if (__builtin_expect(happens, 0)) {
        std::memcpy(later[0], p_v, sizeof(p_v));
        std::memcpy(later[1], p_j, sizeof(p_j));
        if constexpr (kOfTaus) {
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
          em = spread(steps[number].em);
          es = spread(steps[number].es);
          k = spread(steps[number].k);
        } else {
          tile.own_step(q, t, em, es, k, bound);
        }
        if constexpr (kOfTaus) {
          V em_mem, k_mem, es_syn, k_syn;
          if constexpr (kUniform) {
            em_mem = spread(steps_by[number].em_mem);
            k_mem = spread(steps_by[number].k_mem);
            es_syn = spread(steps_by[number].es_syn);
            k_syn = spread(steps_by[number].k_syn);
          } else {
            tile.own_step_by(q, t, em_mem, k_mem, es_syn, k_syn);
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
        if constexpr (kOfTaus) {
          std::memcpy(now[2], v_mem, sizeof(v_mem));
          std::memcpy(now[3], j_mem, sizeof(j_mem));
          std::memcpy(now[4], j_syn, sizeof(j_syn));
        }
        settle(number, later, now);
        std::memcpy(p_v, now[0], sizeof(p_v));
        std::memcpy(p_j, now[1], sizeof(p_j));
        if constexpr (kOfTaus) {
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
        if constexpr (kTime || kOfTaus) {
          V weights;
          std::memcpy(&weights, table + row * kLanes + q * kWidth<T>, sizeof(weights));
          if constexpr (kOfTaus) {
            by_mem[q] += weights * (jumps ? v_mem[q] : j_mem[q]);
            if (!jumps) by_syn[q] += weights * j_syn[q];
          }
          // - P . A e W
          if constexpr (kTime)
            moved += weights * (jumps ? p_v[q] * leak[q] : p_j[q] * synaptic[q] - p_v[q] * leak[q]);
        }
      }
      if constexpr (kTime) by_time[number - 1] += sum_of<T>(moved);
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
    if constexpr (kOfTaus) {
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

  bool assigns() const { return options_.assigns(); }

  /// What the costate at time 0 says of the lanes.
  void begin(int lane, const Costate& at_start) {
    const bool lowered = tile_->above[lane] && !assigns() && !options_.subtract;
    const double v = lowered ? tile_->v_reset[lane] : tile_->v_start[lane];
    own(lowered ? kReset : kStart, lane) += at_start.v;
    own(kCurrent, lane) += at_start.j;
    const double j = tile_->j_start[lane];
    own(kTauMem, lane) += v * at_start.v_mem + j * at_start.j_mem;
    own(kTauSyn, lane) += j * at_start.j_syn;
  }

  /// The lanes in which something happens in an interval, from its end to its begin.
  void settle(Index number, const T later[5][kLanes], T now[5][kLanes]) {
    const double edge = edges_[number + 1];
    Bits touched = 0;
    for (std::int32_t n = heads_[number]; n >= 0; n = events_[n].next) {
      const Event& event = events_[n];
      const int lane = event.lane;
      Costate& costate = costates_[lane];
      if (!(touched >> lane & 1)) {
        touched |= Bits(1) << lane;
        costate = {later[0][lane], later[1][lane]};
        if constexpr (kOfTaus) {
          costate.v_mem = later[2][lane];
          costate.j_mem = later[3][lane];
          costate.j_syn = later[4][lane];
        }
        cursor_[lane] = edge;
      }
      flow_back(lane, costate, event.time);
      event.release ? release(lane, costate) : spike(lane, event.slot, costate);
    }
    const double begin = edges_[number];
    for (; touched; touched &= touched - 1) {
      const int lane = __builtin_ctzll(touched);
      Costate& costate = costates_[lane];
      flow_back(lane, costate, begin);
      now[0][lane] = T(costate.v);
      now[1][lane] = T(costate.j);
      if constexpr (kOfTaus) {
        now[2][lane] = T(costate.v_mem);
        now[3][lane] = T(costate.j_mem);
        now[4][lane] = T(costate.j_syn);
      }
    }
  }

  void flow_back(int lane, Costate& costate, double time) {
    const double gap = cursor_[lane] - time;
    cursor_[lane] = time;
    if (!(gap > 0) || (costate.v == 0 && costate.j == 0)) return;
    const Taus& taus = tile_->taus[lane];
    const Flow flow = decay(taus, gap);
    if constexpr (kOfTaus) {
      const FlowBy by = decay_by(taus, gap, flow);
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
    const Index place = places_[first_ + lane] * options_.max_spikes + slot;
    const double leak = tile.taus[lane].leak;
    const double height = tile.fires_at[lane] - tile.v_reset[lane];
    const bool at_start = tile.above[lane] && slot == 0 && found_.time[place] == 0;
    const double slope = std::max<double>(found_.slope[place], options_.min_slope * height * leak);
    if (assigns()) {
      if (options_.refractory == 0) release(lane, costate);
      const double drive = found_.cotangent[place] - free_v_[lane] * found_.slope_after[place];
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
    const double drive = found_.cotangent[place] - costate.v * height * leak;
    const double lam = at_start ? 0.0 : -drive / slope;
    pass_on(place, drive);
    if (own_) {
      own(kThreshold, lane) -= lam;
      // where a neuron starts above its threshold its first spike takes nothing
      const bool takes = options_.subtract || !(tile.above[lane] && slot == 0);
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
    const Index cause = found_.cause[place];
    if (cause > 0 && cause <= intervals_.used(sample_)) by_time_[cause - 1] += T(drive);
  }

  const Given<T>& given_;
  const Options& options_;
  const Intervals<T>& intervals_;
  const Ordered<T>& ordered_;
  const Found<T>& found_;
  const Tile<T, kVectors>* tile_ = nullptr;
  Index sample_ = 0, first_ = 0, last_ = -1;
  typename Given<T>::Places places_;
  typename Intervals<T>::Edges edges_;
  double* own_ = nullptr;
  T* by_time_ = nullptr;
  std::vector<std::int32_t> heads_;  // of each interval, its last event
  std::vector<Event> events_;
  Costate costates_[kLanes];
  double cursor_[kLanes], free_v_[kLanes], free_mem_[kLanes];
};

/// Gradients are added up in so many parts, and these in order: whatever the number of threads.
constexpr Index kParts = 16;

/// Gradients. The lists of arrivals of a sample share its slots, of which there are `given.arrivals`.
///
/// `room`: as of `layer_forward`.
template <class T>
void layer_backward(const Given<T>& given, const Options& options, const Ordered<T>& ordered,
                    const Found<T>& found, const Gradients<T>& gradients, Index samples,
                    Room<T>* room = nullptr) {
  const Index width = given.positions * given.neurons;
  std::fill_n(gradients.weight, given.rows * given.neurons, T(0));
  if (gradients.lanes) std::fill_n(gradients.lanes, gradients.fields * width, T(0));
  if (gradients.time) std::fill_n(gradients.time, samples * given.arrivals, T(0));
  if (given.batch == 0 || given.neurons == 0) return;
  Intervals<T> intervals(given, ordered);
  intervals.prepare(options.threads, gradients.of_taus(), room);
  Room<T> own_room;
  by_width<T>(given.neurons, [&](auto vectors) {
    constexpr int kVectors = decltype(vectors)::value;
    constexpr int kLanes = Tile<T, kVectors>::kLanes;
    const Index tiles = (given.neurons + kLanes - 1) / kLanes, size = (given.rows + 1) * kLanes;
    // Parts of a fixed number are added up in a fixed order, whatever the number of threads.
    const Index wanted = ((room ? 1 : kParts) + tiles - 1) / tiles;
    const Units units{tiles, std::max<Index>(1, std::min(wanted, (given.batch + 3) / 4)),
                      given.batch};
    Array<T> tables(tiles * size), parts(units.size() * size);
    // of each arrival, tile by tile
    const Index entries = ordered.first(given.batch);
    T* by_time = nullptr;
    if (gradients.time) by_time = with_room((room ? *room : own_room).by_time, tiles * entries);
    const Index own_size = kFields * given.positions * kLanes;
    Array<double> own(gradients.lanes ? units.size() * own_size : 0);
    Pool::shared().run(tiles, options.threads, [&](Index n) {
      pack(given, n * kLanes, kLanes, tables.data() + n * size);
    });
    auto unit = [&](auto uniform, auto of_taus, Index number) {
      constexpr bool kUniform = decltype(uniform)::value, kOfTaus = decltype(of_taus)::value;
      const Index n = units.tile(number), chunk = units.chunk(number), first = n * kLanes;
      T* part = parts.data() + number * size;
      std::fill_n(part, size, T(0));
      double* own_part = gradients.lanes ? own.data() + number * own_size : nullptr;
      if (own_part) std::fill_n(own_part, own_size, 0.0);
      Backward<T, kVectors, kUniform, kOfTaus> backward(given, options, intervals, ordered, found);
      Tile<T, kVectors> tile(given, 0, first, kUniform, intervals.taus());
      for (Index b = units.begin(chunk); b < units.begin(chunk + 1); ++b) {
        const Index position = b % given.positions;
        if (!intervals.alike())
          tile = Tile<T, kVectors>(given, position, first, kUniform, intervals.taus());
        T* of_time = nullptr;
        if (gradients.time) {
          of_time = by_time + n * entries + ordered.first(b);
          std::fill_n(of_time, intervals.used(b), T(0));
        }
        backward.run(tile, tables.data() + n * size, b, first, part, of_time,
                     own_part ? own_part + position * kFields * kLanes : nullptr);
      }
    };
    Pool::shared().run(units.size(), options.threads, [&](Index number) {
      const std::true_type yes;
      const std::false_type no;
      if (intervals.uniform())
        gradients.of_taus() ? unit(yes, yes, number) : unit(yes, no, number);
      else
        gradients.of_taus() ? unit(no, yes, number) : unit(no, no, number);
    });
    // ---- the parts, added up
    const Index bands = std::min<Index>(given.rows, 16);
    Pool::shared().run(bands, options.threads, [&](Index band) {
      for (Index row = given.rows * band / bands; row < given.rows * (band + 1) / bands; ++row)
        for (Index n = 0; n < tiles; ++n) {
          const Index count = std::min<Index>(kLanes, given.neurons - n * kLanes);
          T* sum = gradients.weight + row * given.neurons + n * kLanes;
          for (Index chunk = 0; chunk < units.chunks; ++chunk) {
            const T* part = parts.data() + units.number(n, chunk) * size + row * kLanes;
            for (Index lane = 0; lane < count; ++lane) sum[lane] += part[lane];
          }
        }
    });
    if (gradients.time) {
      // lists of the same sample, one after the other
      const Index lists = given.batch / samples;
      Pool::shared().run(samples, options.threads, [&](Index sample) {
        T* to = gradients.time + sample * given.arrivals;
        for (Index b = sample * lists; b < (sample + 1) * lists; ++b)
          for (Index number = 0; number < intervals.used(b); ++number) {
            T sum = 0;
            for (Index n = 0; n < tiles; ++n)
              sum += by_time[n * entries + ordered.first(b) + number];
            const Index slot = ordered.slot[ordered.first(b) + number];
            if (slot >= 0 && slot < given.arrivals) to[slot] += sum;
          }
      });
    }
    if (gradients.lanes)
      for (Index field = 0; field < gradients.fields; ++field)
        for (Index position = 0; position < given.positions; ++position)
          for (Index neuron = 0; neuron < given.neurons; ++neuron) {
            const Index n = neuron / kLanes, lane = neuron % kLanes;
            double sum = 0;
            for (Index chunk = 0; chunk < units.chunks; ++chunk)
              sum += own[units.number(n, chunk) * own_size + position * kFields * kLanes +
                         field * kLanes + lane];
            gradients.lanes[(field * given.positions + position) * given.neurons + neuron] = T(sum);
          }
  });
}

}  // namespace native
