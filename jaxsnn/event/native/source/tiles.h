// What walks through the arrivals of a sample, a tile of neurons at a time: lists of arrivals in
// the order of time, the intervals between them, the tiles, and what is asked of them.

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

/// Coefficients of intervals one after the other, those of a block of them next to each other.
template <class T>
class Steps {
 public:
  static constexpr Index kBlock = kWidth<T>;

  explicit Steps(const T* from = nullptr) : from_(from) {}

  Step<T> operator[](Index number) const {
    const auto place = std::uint64_t(number);
    const T* at = from_ + place / kBlock * 4 * kBlock + place % kBlock;
    return {at[0], at[kBlock], at[2 * kBlock], at[3 * kBlock]};
  }

 private:
  const T* from_;
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

/// Arrivals of all samples in order, those before t_end only. Behind these times are inf, and rows and
/// slots are left as they are: there may be room for many more than there are.
template <class T>
void put_in_order(const Given<T>& given, const T* time, const std::int32_t* row, bool shared_row,
                  Index threads, T* out_time, std::int32_t* out_row, std::int32_t* out_slot,
                  std::int32_t* used) {
  const Index arrivals = given.arrivals;
  auto one = [&](Index sample) {
    auto& [order, spare, unused] = sorting<T>();
    const T* times = time + sample * arrivals;
    const std::int32_t* rows = shared_row ? row : row + sample * arrivals;
    partition_entries(times, arrivals, given.t_end, order, [](Index, std::int32_t) {});
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
    used[sample] = count;
  };
  // of each arrival as long as some numbers take
  const Index helpers = ThreadPool::useful_threads(threads, 8 * given.batch * arrivals);
  if (helpers == 1 && given.batch > 1) ThreadPool::shared().wake(threads);
  ThreadPool::shared().run_batched(given.batch, helpers, one);
}

/// The slots of the earliest `room` events of each sample, in order; unused slots come last.
template <class T>
void earliest(const T* time, Index batch, Index events, Index room, Index threads,
              std::int32_t* place) {
  ThreadPool::shared().run(batch, threads, [&](Index sample) {
    auto& [order, spare, unused] = sorting<T>();
    if (Index(unused.size()) < events) unused.resize(events);
    std::int32_t* const others = unused.data();
    partition_entries(time + sample * events, events, std::numeric_limits<T>::infinity(), order,
                 [=](Index place, std::int32_t slot) { others[place] = slot; });
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
  Array<T> time, by_time, drive, steps;
  Array<std::int32_t> row, slot;
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
    return sizeof(T) * (time.size() + by_time.size() + drive.size() + steps.size()) +
           4 * (row.size() + slot.size()) + sizeof(StepBy<T>) * steps_by.size();
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
      : given_(given), ordered_(ordered), used_(given.batch), offset_(given.batch + 1) {
    offset_[0] = 0;
    for (Index b = 0; b < given.batch; ++b) {
      used_[b] = ordered.count(b);
      offset_[b + 1] = offset_[b] + (used_[b] / kBlock + 1) * kBlock;
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
    if (lanes) taus_ = TimeConstants(mem[0], syn[0], rounding_of(T()));
  }

  bool uniform() const { return uniform_; }
  /// All positions have the same lanes.
  bool alike() const { return alike_; }
  const TimeConstants& taus() const { return taus_; }
  Index used(Index sample) const { return used_[sample]; }

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

  Steps<T> steps(Index sample) const { return Steps<T>(steps_ + 4 * offset_[sample]); }
  const StepBy<T>* steps_by(Index sample) const { return steps_by_ + offset_[sample]; }

  /// The coefficients of all intervals, where they are the same for all lanes.
  ///
  /// `room`: for them; null: in memory of their own.
  void prepare(Index threads, bool derivatives, Room<T>* room = nullptr) {
    if (!uniform_) return;
    Room<T>& of = room ? *room : own_;
    steps_ = with_room(of.steps, 4 * offset_[given_.batch]);
    if (derivatives) steps_by_ = with_room(of.steps_by, offset_[given_.batch]);
    auto one = [&](Index sample) {
      const Index count = used(sample) + 1;
      T* steps = steps_ + 4 * offset_[sample];
      const T* times = ordered_.time + ordered_.first(sample);
      const T stretch = 1 + 4 * std::numeric_limits<T>::epsilon();
      const T slow = T(taus_.slow), gap = T(taus_.gap), gain = T(taus_.gain);
      const T to_ratio = taus_.gap > 0 ? T(1 / taus_.gap) : T(0);
      const V zero = {};
      for (Index first = 0; first < count; first += kBlock, steps += 4 * kBlock) {
        const Index block = std::min<Index>(kBlock, count - first);
        V t = {};
        if (first > 0 && first + kBlock < count)
          t = load<T>(times + first) - load<T>(times + first - 1);
        else
          for (Index n = first; n < first + block; ++n)
            t[n - first] = (n + 1 < count ? times[n] : given_.t_end) - (n > 0 ? times[n - 1] : 0);
        t = t > zero ? t : zero;
        // of what is asked: v em + j k and j es, and 1 - em for the bound
        // tau_mem = 2 tau_syn: the same twice
        const V fallen = expm1_lanes(-t * slow), bend = gap == slow ? fallen : expm1_lanes(-t * gap);
        const V slower = 1 + fallen, faster = slower + slower * bend;
        const V ratio = bend < zero ? -bend * to_ratio : t;
        const V k = slower * ratio * gain;
        const V em = taus_.mem_longer ? slower : faster;
        const V es = taus_.mem_longer ? faster : slower;
        const V fall = (taus_.mem_longer ? -fallen : -(fallen + bend + fallen * bend)) * stretch;
        // k is never larger than the bound; rounding must not make it so
        const V bound = fall > k ? fall : k;
        store<T>(steps, em);
        store<T>(steps + kBlock, es);
        store<T>(steps + 2 * kBlock, k);
        store<T>(steps + 3 * kBlock, bound);
        if (derivatives)
          for (Index n = 0; n < block; ++n) {
            const FlowDerivatives by = flow_derivatives(taus_, t[n], {em[n], es[n], k[n]});
            steps_by_[offset_[sample] + first + n] = {T(by.em_mem), T(by.k_mem), T(by.es_syn),
                                                      T(by.k_syn)};
          }
      }
    };
    ThreadPool::shared().run_batched(given_.batch, ThreadPool::useful_threads(threads, 8 * offset_[given_.batch]), one);
  }

 private:
  const Given<T>& given_;
  const Ordered<T>& ordered_;
  static constexpr Index kBlock = Steps<T>::kBlock;
  Array<Index> used_;
  Array<Index> offset_;  // whole blocks
  Room<T> own_;
  T* steps_ = nullptr;
  StepBy<T>* steps_by_ = nullptr;
  TimeConstants taus_;
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
  alignas(64) double v_reset[kLanes], fires_at[kLanes];
  double v_start[kLanes], j_start[kLanes];
  TimeConstants taus[kLanes];
  bool above[kLanes];  // it starts there
  int count;
  bool positive;  // all thresholds are
  bool level;     // all thresholds are the same, and all v_reset are
  /// A maximum of v reaches the threshold only if (v + j)^2 >= close j threshold: 4, where that is
  /// so, and less by what it is rounded to; 0 where it is not told like this.
  T close;

  Tile(const Given<T>& given, Index position, Index first, bool uniform, const TimeConstants& common) {
    count = int(std::min<Index>(kLanes, given.neurons - first));
    positive = level = true;
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
      level = level && (lane >= count || fires_at[lane] == fires_at[0]) && v_reset[lane] == v_reset[0];
      taus[lane] = uniform ? common : TimeConstants(of[kTauMem * step], of[kTauSyn * step],
                                           rounding_of(T()));
      if (taus[lane].ratio != Ratio::kMemTwiceSyn) close = 0;
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
    for (int half = 0; half < kWidth<T>; half += kWidth<double>) {
      const int lane = vector * kWidth<T> + half;
      DoubleVector rate, apart, to_mem, is_long;
      std::memcpy(&rate, slow + lane, sizeof(rate));
      std::memcpy(&apart, gap + lane, sizeof(apart));
      std::memcpy(&to_mem, gain + lane, sizeof(to_mem));
      std::memcpy(&is_long, syn_fast + lane, sizeof(is_long));
      const DoubleVector zero = {}, fallen = expm1_lanes(-t * rate), bend = expm1_lanes(-t * apart);
      const DoubleVector slower = 1 + fallen, faster = slower + slower * bend;
      const DoubleVector ratio = bend < zero ? -bend / apart : zero + t;
      const DoubleVector of_k = slower * ratio * to_mem;
      const DoubleVector of_em = is_long > zero ? slower : faster;
      const DoubleVector of_es = is_long > zero ? faster : slower;
      const DoubleVector fall = is_long > zero ? -fallen : -(fallen + bend + fallen * bend);
      for (int n = 0; n < kWidth<double>; ++n) {
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
      const TimeConstants& own = taus[vector * kWidth<T> + n];
      FlowDerivatives by = flow_derivatives(own, std::max(t, 0.0), flow_over(own, std::max(t, 0.0)));
      em_mem[n] = T(by.em_mem);
      k_mem[n] = T(by.k_mem);
      es_syn[n] = T(by.es_syn);
      k_syn[n] = T(by.k_syn);
    }
  }
};

/// All tiles, where they are the same at all positions.
template <class T, int kVectors>
class Tiles {
 public:
  Tiles(const Given<T>& given, const Intervals<T>& intervals) : given_(given), intervals_(intervals) {
    if (!intervals.alike()) return;
    for (Index first = 0; first < given.neurons; first += Tile<T, kVectors>::kLanes)
      shared_.push_back(made(0, first));
  }

  /// A tile by its number; `own`: where it is kept, if it is not shared.
  const Tile<T, kVectors>& of(Index number, Index position,
                              std::optional<Tile<T, kVectors>>& own) const {
    if (intervals_.alike()) return shared_[number];
    return own.emplace(made(position, number * Tile<T, kVectors>::kLanes));
  }

 private:
  Tile<T, kVectors> made(Index position, Index first) const {
    return {given_, position, first, intervals_.uniform(), intervals_.taus()};
  }

  const Given<T>& given_;
  const Intervals<T>& intervals_;
  std::vector<Tile<T, kVectors>> shared_;
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

// ---- levels

/// Far below the rounding of the largest box of each column of a table: what no open box is as small as.
template <class T>
void least_levels(const T* table, Index rows, int lanes, T* least) {
  std::fill_n(least, lanes, T(0));
  for (Index row = 0; row < rows; ++row)
    for (int lane = 0; lane < lanes; ++lane)
      least[lane] = std::max(least[lane], std::abs(table[row * lanes + lane]));
  for (int lane = 0; lane < lanes; ++lane)
    least[lane] *= T(0x1p-16) * std::numeric_limits<T>::epsilon();
}

/// What open boxes add up to: a j that stays, high + low, which is exactly that at rest where none is open,
/// as in jaxsnn/event/forward/box_levels.py. A box of weight W is W when it opens and -W when it closes.
template <class T>
inline void turn_box(Vector<T>& high, Vector<T>& low, Vector<T> weight, Vector<T> rest,
                     Vector<T> least) {
  using V = Vector<T>;
  const V zero = {}, sum = high + weight, taken = sum - high;
  const V lost = ((high - (sum - taken)) + (weight - taken)) + low;
  const V level = sum + lost, took = level - sum;
  const V left = (sum - (level - took)) + (lost - took), beside = (level - rest) + left;
  const auto closed = (beside < zero ? -beside : beside) <= least;
  high = closed ? rest : level;
  low = closed ? zero : left;
}

/// Rows of a table are asked for so many intervals before they are needed: they may be far away.
constexpr Index kAhead = 3;

template <class T, int kVectors>
inline void fetch(const T* row) {
  for (int q = 0; q < kVectors; ++q) __builtin_prefetch(row + q * kWidth<T>);
}

// ---- what is asked

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
  if constexpr (kMaxVectors == 8)
    if (neurons > 4 * kWidth<T>) return call(std::integral_constant<int, 8>());
  return call(std::integral_constant<int, 4>());
}

}  // namespace native
