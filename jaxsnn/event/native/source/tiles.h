// Building blocks of the kernels for populations without feedback (layer_forward.h and
// layer_backward.h), which are shared by the group's kernel and the readout.
//
// An input spike is delivered to a population as an arrival: a time and a row of the weight matrix.
// The arrivals of a sample, sorted by time (`SortedArrivals`), divide the simulation time into
// `Intervals`, in which the neurons' state (v, j) follows the closed-form flow of cubalif.h.
// Interval 0 starts at time 0, interval n at arrival n - 1:
//
//     0        t[0]      t[1]                  t[used - 1]      t_end
//     |---0----|----1----|----2---- ... -------|----used--------|
//              + weight[row[0]]                + weight[row[used - 1]]
//
// Neurons are processed in tiles of kVectors SIMD vectors, whose state fits into registers:
//
//     weight        (rows, neurons)              -> per tile (rows + 1, kLanes), the last row is 0
//     parameters    (fields, positions, neurons) -> `Tile` of one position, padded to kLanes
//     time, row     (batch, arrivals)            -> one list of arrivals per sample or position
//     spikes        (batch, neurons, max_spikes) <- times in order, then inf
//
// A population of a convolution has several positions that share its weights. Each position has its
// own list of arrivals; such lists are consecutive entries of the batch axis.

#pragma once

#include "cubalif.h"

namespace native {

/// Fields of the neurons' parameters, in the order of the array.
enum Field { kThreshold, kReset, kStart, kCurrent, kTauMem, kTauSyn, kFields };
constexpr Index kFieldsWithoutTaus = kTauMem;  // the fields before the time constants

struct Options {
  Index max_spikes = 1;
  Index max_counted = 1;  // number of spikes after which a neuron is no longer simulated
  bool once = false;      // a neuron is no longer simulated after its first spike
  bool subtract = false;  // a reset subtracts (threshold - v_reset) and so keeps the overshoot
  double refractory = 0;  // refractory period, seconds
  // lower bound of dv/dt at a spike, as a fraction of (threshold - v_reset) / tau_mem
  double min_slope = 0;
  bool jumps = false;  // an arrival increments v instead of j (delta synapses)
  Index threads = 1;

  /// Return whether a spike sets v to a value that does not depend on v before.
  bool spike_sets_v() const { return refractory > 0 || (jumps && !subtract); }
};

/// A population's sizes, weights and parameters, with the sizes of the batch. `batch` counts lists
/// of arrivals: samples times positions if every position has a list of its own.
template <class T>
struct Population {
  Index batch, arrivals, rows, neurons, positions;
  const T* weight;      // (rows, neurons)
  const T* parameters;  // (fields, positions, neurons), the `constants` in Python
  T t_end;
  bool strict = false;  // an arrival must raise v above the threshold, not just onto it
  /// Order of a sample's results: (neurons, positions) if true, else (positions, neurons).
  bool position_minor = false;

  /// Index of a list's neurons on the flattened (batch, neurons) axes of the results.
  struct NeuronIndex {
    Index begin = 0, step = 1;

    Index operator[](Index neuron) const { return begin + neuron * step; }
  };

  NeuronIndex neuron_index(Index list) const {
    if (!position_minor) return {list * neurons, 1};
    return {list / positions * positions * neurons + list % positions, positions};
  }
};

/// Arrivals sorted by time: arrays (batch, arrivals), of which the first `used[b]` entries of each
/// list count; or, if `begin` is set, lists stored back to back, list b from `begin[b]` on.
template <class T>
struct SortedArrivals {
  const T* time;
  const std::int32_t* row;  // row of the weights; `rows` stands for a row of zeros
  const std::int32_t* slot;
  const std::int32_t* used;
  Index arrivals;
  const Index* begin = nullptr;

  Index first(Index list) const { return begin ? begin[list] : list * arrivals; }
  Index count(Index list) const {
    // `used` comes from outside this library: clamp it to the size of the arrays.
    return begin ? begin[list + 1] - begin[list] : std::clamp<Index>(used[list], 0, arrivals);
  }
};

/// Coefficients of the flow over an interval, for all lanes. `bound` is 1 - em: the effect on v of
/// a j that does not decay, which is an upper bound of k.
template <class T>
struct Step {
  T em, es, k, bound;
};

/// Coefficients of successive intervals, stored in blocks: em of kBlock intervals, then es, k,
/// bound.
template <class T>
class Steps {
 public:
  static constexpr Index kBlock = kWidth<T>;

  explicit Steps(const T* from = nullptr) : from_(from) {}

  Step<T> operator[](Index interval) const {
    const auto index = std::uint64_t(interval);
    const T* coefficients = from_ + index / kBlock * 4 * kBlock + index % kBlock;
    return {coefficients[0], coefficients[kBlock], coefficients[2 * kBlock],
            coefficients[3 * kBlock]};
  }

 private:
  const T* from_;
};

template <class T>
struct StepDerivatives {
  T em_mem, k_mem, es_syn, k_syn;
};

constexpr double rounding_of(float) { return 0x1p-23; }
constexpr double rounding_of(double) { return 0x1p-52; }
/// Tolerance of the root finder, well below the precision of the result.
constexpr double tolerance_of(float) { return 0x1p-32; }
constexpr double tolerance_of(double) { return 0x1p-52; }

// ---- sorting arrivals

/// Buffers for sorting, one set per thread.
template <class T>
struct SortBuffers {
  std::vector<Entry<T>> order, spare;
  std::vector<std::int32_t> rest;
};

template <class T>
SortBuffers<T>& sort_buffers() {
  thread_local SortBuffers<T> buffers;
  return buffers;
}

/// Sort the arrivals of every sample by time and drop those from t_end on. Unused times are set to
/// inf; unused rows and slots are not written, as arrays are often much longer than their content.
template <class T>
void sort_arrivals(const Population<T>& population, const T* time, const std::int32_t* row,
                   bool shared_row, Index threads, T* out_time, std::int32_t* out_row,
                   std::int32_t* out_slot, std::int32_t* used) {
  const Index arrivals = population.arrivals;
  auto sort_sample = [&](Index sample) {
    auto& [order, spare, rest] = sort_buffers<T>();
    const T* times = time + sample * arrivals;
    const std::int32_t* rows = shared_row ? row : row + sample * arrivals;
    partition_entries(times, arrivals, population.t_end, order, [](Index, std::int32_t) {});
    sort_entries<T>(order, spare);
    const Index count = order.size(), first = sample * arrivals;
    for (Index n = 0; n < count; ++n) {
      const std::int32_t slot = order[n].slot, table_row = rows[slot];
      out_time[first + n] = times[slot];
      out_row[first + n] =
          table_row >= 0 && table_row < population.rows ? table_row : population.rows;
      out_slot[first + n] = slot;
    }
    std::fill(out_time + first + count, out_time + first + arrivals,
              std::numeric_limits<T>::infinity());
    used[sample] = count;
  };
  // Sorting one arrival takes about as long as eight operations.
  const Index useful = ThreadPool::useful_threads(threads, 8 * population.batch * arrivals);
  if (useful == 1 && population.batch > 1) ThreadPool::shared().wake(threads);
  ThreadPool::shared().run_batched(population.batch, useful, sort_sample);
}

/// Return whether numbers ascend; false if there is NaN. In blocks, so that the compiler can use
/// vector instructions.
template <class T>
bool is_ascending(const T* first, const T* end) {
  constexpr Index kBlock = 1024;
  for (; first < end; first += kBlock) {
    int ascends = first[0] == first[0];
    const Index pairs = std::min<Index>(kBlock, end - first - 1);
    for (Index n = 0; n < pairs; ++n) ascends &= first[n] <= first[n + 1];
    if (!ascends) return false;
  }
  return true;
}

/// Arrivals in order, without their slots: those of the caller if they are sorted, else a copy.
template <class T>
class SortedCopy {
 public:
  /// `used`: (batch,), to be written.
  SortedArrivals<T> sort(const Population<T>& population, const T* time, const std::int32_t* row,
                         bool shared_row, Index threads, std::int32_t* used) {
    const Index arrivals = population.arrivals, count = population.batch * arrivals;
    bool is_sorted = !shared_row || population.batch == 1;
    for (Index sample = 0; is_sorted && sample < population.batch; ++sample) {
      const T *const first = time + sample * arrivals, *const end = first + arrivals;
      is_sorted = is_ascending(first, end);
      used[sample] = std::int32_t(std::lower_bound(first, end, population.t_end) - first);
    }
    if (is_sorted) return {time, row, nullptr, used, arrivals};
    time_ = Array<T>(count);
    row_ = Array<std::int32_t>(count);
    slot_ = Array<std::int32_t>(count);
    sort_arrivals(population, time, row, shared_row, threads, time_.data(), row_.data(),
                  slot_.data(), used);
    return {time_.data(), row_.data(), slot_.data(), used, arrivals};
  }

 private:
  Array<T> time_;
  Array<std::int32_t> row_, slot_;
};

/// Write the slots of the `capacity` earliest events of a sample in order; unused slots come last.
template <class T>
void find_earliest(const T* time, Index events, Index capacity, std::int32_t* slots) {
  auto& [order, spare, rest] = sort_buffers<T>();
  if (Index(rest.size()) < events) rest.resize(events);
  std::int32_t* const rest_slots = rest.data();
  partition_entries(time, events, std::numeric_limits<T>::infinity(), order,
                    [=](Index position, std::int32_t slot) { rest_slots[position] = slot; });
  sort_entries<T>(order, spare);
  const Index count = std::min<Index>(order.size(), capacity);
  for (Index n = 0; n < count; ++n) slots[n] = order[n].slot;
  std::copy_n(rest.begin(), capacity - count, slots + count);
}

// ---- intervals

/// Memory that a thread reuses from sample to sample: the system takes longer to clear new pages
/// than the kernels take to fill them.
template <class T>
struct Scratch {
  Array<T> time, by_time, steps;
  Array<std::int32_t> row, slot;
  Array<T> spike_time, spike_slope, spike_slope_after, spike_cotangent;  // of all spike slots
  Array<std::int32_t> spike_cause;
  Array<StepDerivatives<T>> step_derivatives;

  /// Access to the calling thread's memory; on destruction it is freed if it has become too large
  /// to keep.
  class Lease {
   public:
    Scratch& operator*() { return thread_scratch(); }
    ~Lease() {
      if (thread_scratch().bytes() > kMaxKeptBytes) thread_scratch() = Scratch();
    }

   private:
    static constexpr Index kMaxKeptBytes = Index(1) << 25;
    static Scratch& thread_scratch() {
      thread_local Scratch scratch;
      return scratch;
    }
  };

 private:
  Index bytes() const {
    return sizeof(T) * (time.size() + by_time.size() + steps.size() + spike_time.size() +
                        spike_slope.size() + spike_slope_after.size() + spike_cotangent.size()) +
           4 * (row.size() + slot.size() + spike_cause.size()) +
           sizeof(StepDerivatives<T>) * step_derivatives.size();
  }
};

/// Return an array's data with room for at least `size` elements; the content is unspecified.
template <class Element>
Element* ensure_capacity(Array<Element>& array, Index size) {
  if (array.size() < size) {
    array = Array<Element>();
    array = Array<Element>(size + size / 8);
  }
  return array.data();
}

/// Intervals between arrivals, of all samples; see the top of this file for their numbers.
template <class T>
class ArrivalIntervals {
 public:
  ArrivalIntervals(const Population<T>& population, const SortedArrivals<T>& sorted)
      : population_(population), sorted_(sorted), counts_(population.batch) {
    for (Index list = 0; list < population.batch; ++list) counts_[list] = sorted.count(list);
  }

  Index used(Index sample) const { return counts_[sample]; }

  /// Start times of a sample's intervals, seconds; entry used + 1 is the end of the last interval.
  class Edges {
   public:
    Edges() = default;
    Edges(const T* time, Index count, T t_end) : time_(time), count_(count), t_end_(t_end) {}

    double operator[](Index interval) const {
      return interval == 0 ? 0.0 : double(interval > count_ ? t_end_ : time_[interval - 1]);
    }

   private:
    const T* time_;
    Index count_;
    T t_end_;
  };

  Edges edges(Index sample) const {
    return {sorted_.time + sorted_.first(sample), used(sample), population_.t_end};
  }
  double edge(Index sample, Index interval) const { return edges(sample)[interval]; }

  /// Rows of the weights that arrive at the start of a sample's intervals.
  class Rows {
   public:
    Rows() = default;
    Rows(const std::int32_t* row, Index count, Index zero_row)
        : row_(row), count_(count), zero_row_(std::uint32_t(zero_row)) {}

    /// Return the row of an interval; invalid rows, and interval 0, give the row of zeros.
    Index operator[](Index interval) const {
      return interval == 0 ? zero_row_ : std::min(std::uint32_t(row_[interval - 1]), zero_row_);
    }
    /// Return the row of the nearest valid interval, for prefetching.
    Index at_clamped(Index interval) const {
      return (*this)[std::clamp<Index>(interval, 0, count_)];
    }

   private:
    const std::int32_t* row_;
    Index count_;
    std::uint32_t zero_row_;
  };

  Rows rows(Index sample) const {
    return {sorted_.row + sorted_.first(sample), used(sample), population_.rows};
  }
  Index row(Index sample, Index interval) const { return rows(sample)[interval]; }

 protected:
  const Population<T>& population_;
  const SortedArrivals<T>& sorted_;
  Array<Index> counts_;
};

/// Round a spike's time to the network's precision. Simultaneous arrivals act after a spike; a spike
/// that follows an arrival must therefore not be rounded onto its time.
template <class T>
inline T after_arrival(double arrival, double wait, double exact_time) {
  const T time = T(exact_time), arrival_time = T(arrival);
  constexpr T kNever = std::numeric_limits<T>::infinity();
  return wait > 0 && time <= arrival_time ? std::nextafter(arrival_time, kNever) : time;
}

/// Count the sorted times before `time`: bisection without branches that could be mispredicted,
/// then one vector comparison.
template <class T>
inline Index count_before(const T* times, Index used, double time) {
  Index count = 0, remaining = used;
  while (remaining > kWidth<T>) {
    const Index half = (remaining + 1) / 2;
    count += times[count + half - 1] < time ? half : 0;
    remaining -= half;
  }
  // The end of a refractory period need not be representable in the network's precision, and the
  // vector comparison would round it.
  const bool is_representable = double(T(time)) == time;
  if (used >= kWidth<T> && is_representable) {
    const Index block = std::min<Index>(count, used - kWidth<T>);
    const unsigned not_before = at_least(load<T>(times + block), broadcast(T(time)));
    return block + __builtin_ctz(not_before | 1u << kWidth<T>);
  }
  for (; remaining > 0; --remaining) count += times[count] < time;
  return count;
}

/// Intervals with the flow of CubaLIF neurons over them.
template <class T>
class Intervals : public ArrivalIntervals<T> {
  using V = Vector<T>;
  using ArrivalIntervals<T>::population_;
  using ArrivalIntervals<T>::sorted_;
  using ArrivalIntervals<T>::counts_;

 public:
  using ArrivalIntervals<T>::used;

  Intervals(const Population<T>& population, const SortedArrivals<T>& sorted)
      : ArrivalIntervals<T>(population, sorted), offset_(population.batch + 1) {
    offset_[0] = 0;
    for (Index list = 0; list < population.batch; ++list)
      offset_[list + 1] = offset_[list] + (counts_[list] / kBlock + 1) * kBlock;
    const T* tau_mem = population.parameters + kTauMem * population.positions * population.neurons;
    const T* tau_syn = population.parameters + kTauSyn * population.positions * population.neurons;
    const Index all_neurons = population.positions * population.neurons;
    uniform_ = true;
    for (Index n = 1; n < all_neurons; ++n)
      uniform_ = uniform_ && tau_mem[n] == tau_mem[0] && tau_syn[n] == tau_syn[0];
    for (Index field = 0; field < kFields; ++field) {
      const T* values = population.parameters + field * all_neurons;
      for (Index n = population.neurons; n < all_neurons; ++n)
        same_at_all_positions_ =
            same_at_all_positions_ && values[n] == values[n - population.neurons];
    }
    if (all_neurons) taus_ = TimeConstants(tau_mem[0], tau_syn[0], rounding_of(T()));
  }

  bool uniform() const { return uniform_; }
  /// Return whether all positions have the same parameters.
  bool same_at_all_positions() const { return same_at_all_positions_; }
  const TimeConstants& taus() const { return taus_; }
  Steps<T> steps(Index sample) const { return Steps<T>(steps_ + 4 * offset_[sample]); }
  const StepDerivatives<T>* step_derivatives(Index sample) const {
    return step_derivatives_ + offset_[sample];
  }

  /// Compute the coefficients of all intervals, if the time constants are the same for all neurons.
  ///
  /// `scratch`: memory for them; null: allocated by this object.
  void compute_steps(Index threads, bool derivatives, Scratch<T>* scratch = nullptr) {
    if (!uniform_) return;
    Scratch<T>& scratch_used = scratch ? *scratch : own_scratch_;
    steps_ = ensure_capacity(scratch_used.steps, 4 * offset_[population_.batch]);
    if (derivatives)
      step_derivatives_ =
          ensure_capacity(scratch_used.step_derivatives, offset_[population_.batch]);
    auto compute_sample = [&](Index sample) {
      const Index count = used(sample) + 1;
      T* steps = steps_ + 4 * offset_[sample];
      const T* times = sorted_.time + sorted_.first(sample);
      const T margin = 1 + 4 * std::numeric_limits<T>::epsilon();
      const T slow = T(taus_.slow), gap = T(taus_.gap), gain = T(taus_.gain);
      const T per_gap = taus_.gap > 0 ? T(1 / taus_.gap) : T(0);
      const V zero = {};
      for (Index first = 0; first < count; first += kBlock, steps += 4 * kBlock) {
        const Index block = std::min<Index>(kBlock, count - first);
        V t = {};
        if (first > 0 && first + kBlock < count)
          t = load<T>(times + first) - load<T>(times + first - 1);
        else
          for (Index n = first; n < first + block; ++n)
            t[n - first] =
                (n + 1 < count ? times[n] : population_.t_end) - (n > 0 ? times[n - 1] : 0);
        t = t > zero ? t : zero;
        // These are the coefficients of v em + j k and j es, and 1 - em for the bound. With tau_mem
        // = 2 tau_syn both exponentials are the same.
        const V slow_expm1 = expm1_lanes(-t * slow),
                gap_expm1 = gap == slow ? slow_expm1 : expm1_lanes(-t * gap);
        const V slower = 1 + slow_expm1, faster = slower + slower * gap_expm1;
        const V ratio = gap_expm1 < zero ? -gap_expm1 * per_gap : t;
        const V k = slower * ratio * gain;
        const V em = taus_.mem_longer ? slower : faster;
        const V es = taus_.mem_longer ? faster : slower;
        const V raw_bound =
            (taus_.mem_longer ? -slow_expm1 : -(slow_expm1 + gap_expm1 + slow_expm1 * gap_expm1)) *
            margin;
        // In exact arithmetic k never exceeds the bound: restore this after rounding.
        const V bound = raw_bound > k ? raw_bound : k;
        store<T>(steps, em);
        store<T>(steps + kBlock, es);
        store<T>(steps + 2 * kBlock, k);
        store<T>(steps + 3 * kBlock, bound);
        if (derivatives)
          for (Index n = 0; n < block; ++n) {
            const FlowDerivatives derivatives_of_flow =
                flow_derivatives(taus_, t[n], {em[n], es[n], k[n]});
            step_derivatives_[offset_[sample] + first + n] = {
                T(derivatives_of_flow.em_mem), T(derivatives_of_flow.k_mem),
                T(derivatives_of_flow.es_syn), T(derivatives_of_flow.k_syn)};
          }
      }
    };
    ThreadPool::shared().run_batched(
        population_.batch, ThreadPool::useful_threads(threads, 8 * offset_[population_.batch]),
        compute_sample);
  }

 private:
  static constexpr Index kBlock = Steps<T>::kBlock;
  Array<Index> offset_;  // start of each sample's coefficients, in full blocks
  Scratch<T> own_scratch_;
  T* steps_ = nullptr;
  StepDerivatives<T>* step_derivatives_ = nullptr;
  TimeConstants taus_;
  bool uniform_ = true, same_at_all_positions_ = true;
};

// ---- tiles

/// Adjacent neurons of one position, padded with neurons that never fire.
template <class T, int kVectors>
struct Tile {
  static constexpr int kLanes = kVectors * kWidth<T>;
  using V = Vector<T>;

  alignas(64) T threshold[kLanes];
  alignas(64) double slow[kLanes], gap[kLanes], gain[kLanes], mem_is_longer[kLanes];
  alignas(64) double v_reset[kLanes], fires_at[kLanes];
  double v_start[kLanes], j_start[kLanes];
  TimeConstants taus[kLanes];
  bool starts_above[kLanes];  // v starts at or above the threshold
  int count;
  bool positive;       // all thresholds are positive
  bool shared_levels;  // all neurons have the same threshold and the same v_reset
  /// With tau_mem = 2 tau_syn, a maximum of v reaches the threshold only if (v + j)^2 >= 4 j
  /// threshold. This factor is 4, reduced by the rounding error; 0 if the test does not apply.
  T peak_factor;

  Tile(const Population<T>& population, Index position, Index first, bool uniform,
       const TimeConstants& common) {
    count = int(std::min<Index>(kLanes, population.neurons - first));
    positive = shared_levels = true;
    peak_factor = T(4 - 256 * rounding_of(T()));
    const Index stride = population.positions * population.neurons;
    for (int lane = 0; lane < kLanes; ++lane) {
      const T* values =
          population.parameters + position * population.neurons + first + std::min(lane, count - 1);
      threshold[lane] =
          lane < count ? values[kThreshold * stride] : std::numeric_limits<T>::infinity();
      fires_at[lane] = threshold[lane];
      v_reset[lane] = values[kReset * stride];
      v_start[lane] = lane < count ? values[kStart * stride] : 0;
      j_start[lane] = lane < count ? values[kCurrent * stride] : 0;
      starts_above[lane] =
          population.strict ? v_start[lane] > threshold[lane] : v_start[lane] >= threshold[lane];
      positive = positive && threshold[lane] > 0;
      shared_levels = shared_levels && (lane >= count || fires_at[lane] == fires_at[0]) &&
                      v_reset[lane] == v_reset[0];
      taus[lane] = uniform ? common
                           : TimeConstants(values[kTauMem * stride], values[kTauSyn * stride],
                                           rounding_of(T()));
      if (taus[lane].ratio != Ratio::kMemTwiceSyn) peak_factor = 0;
      slow[lane] = taus[lane].slow;
      gap[lane] = taus[lane].gap;
      gain[lane] = taus[lane].gain;
      mem_is_longer[lane] = taus[lane].mem_longer ? 1 : 0;
    }
  }

  /// Compute the flow's coefficients for a vector of neurons with individual time constants.
  void compute_step(int vector, double t, V& em, V& es, V& k, V& bound) const {
    t = std::max(t, 0.0);
    alignas(64) T coefficients[4][kWidth<T>];
    for (int offset = 0; offset < kWidth<T>; offset += kWidth<double>) {
      const int lane = vector * kWidth<T> + offset;
      DoubleVector rate, rate_gap, rate_gain, mem_longer;
      std::memcpy(&rate, slow + lane, sizeof(rate));
      std::memcpy(&rate_gap, gap + lane, sizeof(rate_gap));
      std::memcpy(&rate_gain, gain + lane, sizeof(rate_gain));
      std::memcpy(&mem_longer, mem_is_longer + lane, sizeof(mem_longer));
      const DoubleVector zero = {}, slow_expm1 = expm1_lanes(-t * rate),
                         gap_expm1 = expm1_lanes(-t * rate_gap);
      const DoubleVector slower = 1 + slow_expm1, faster = slower + slower * gap_expm1;
      const DoubleVector ratio = gap_expm1 < zero ? -gap_expm1 / rate_gap : zero + t;
      const DoubleVector all_k = slower * ratio * rate_gain;
      const DoubleVector all_em = mem_longer > zero ? slower : faster;
      const DoubleVector all_es = mem_longer > zero ? faster : slower;
      const DoubleVector all_bounds =
          mem_longer > zero ? -slow_expm1 : -(slow_expm1 + gap_expm1 + slow_expm1 * gap_expm1);
      for (int n = 0; n < kWidth<double>; ++n) {
        coefficients[0][offset + n] = T(all_em[n]);
        coefficients[1][offset + n] = T(all_es[n]);
        coefficients[2][offset + n] = T(all_k[n]);
        coefficients[3][offset + n] =
            std::max(T(all_bounds[n]) * (1 + 2 * std::numeric_limits<T>::epsilon()), T(all_k[n]));
      }
    }
    std::memcpy(&em, coefficients[0], sizeof(em));
    std::memcpy(&es, coefficients[1], sizeof(es));
    std::memcpy(&k, coefficients[2], sizeof(k));
    std::memcpy(&bound, coefficients[3], sizeof(bound));
  }

  /// Compute the derivatives of the flow's coefficients with respect to the time constants.
  void compute_step_derivatives(int vector, double t, V& em_mem, V& k_mem, V& es_syn,
                                V& k_syn) const {
    for (int n = 0; n < kWidth<T>; ++n) {
      const TimeConstants& neuron_taus = taus[vector * kWidth<T> + n];
      FlowDerivatives derivatives =
          flow_derivatives(neuron_taus, std::max(t, 0.0), flow_over(neuron_taus, std::max(t, 0.0)));
      em_mem[n] = T(derivatives.em_mem);
      k_mem[n] = T(derivatives.k_mem);
      es_syn[n] = T(derivatives.es_syn);
      k_syn[n] = T(derivatives.k_syn);
    }
  }
};

/// Tiles of a population, built once if all positions have the same parameters.
template <class T, int kVectors>
class TileCache {
 public:
  TileCache(const Population<T>& population, const Intervals<T>& intervals)
      : population_(population), intervals_(intervals) {
    if (!intervals.same_at_all_positions()) return;
    for (Index first = 0; first < population.neurons; first += Tile<T, kVectors>::kLanes)
      tiles_.push_back(make_tile(0, first));
  }

  /// Return a tile by its index; `storage` holds it if it is not shared by all positions.
  const Tile<T, kVectors>& tile(Index index, Index position,
                                std::optional<Tile<T, kVectors>>& storage) const {
    if (intervals_.same_at_all_positions()) return tiles_[index];
    return storage.emplace(make_tile(position, index * Tile<T, kVectors>::kLanes));
  }

 private:
  Tile<T, kVectors> make_tile(Index position, Index first) const {
    return {population_, position, first, intervals_.uniform(), intervals_.taus()};
  }

  const Population<T>& population_;
  const Intervals<T>& intervals_;
  std::vector<Tile<T, kVectors>> tiles_;
};

/// Copy a tile's columns of the weights, followed by a row of zeros.
template <class T>
void pack_weights(const Population<T>& population, Index first, int lanes, T* table) {
  const Index count = std::min<Index>(lanes, population.neurons - first);
  for (Index row = 0; row < population.rows; ++row) {
    std::copy_n(population.weight + row * population.neurons + first, count, table + row * lanes);
    std::fill(table + row * lanes + count, table + (row + 1) * lanes, T(0));
  }
  std::fill_n(table + population.rows * lanes, lanes, T(0));
}

// ---- box spikes

/// Compute a tolerance for each column of weights: far below the rounding error of its largest box,
/// and so smaller than any open box.
template <class T>
void compute_box_tolerances(const T* table, Index rows, int lanes, T* tolerance) {
  std::fill_n(tolerance, lanes, T(0));
  for (Index row = 0; row < rows; ++row)
    for (int lane = 0; lane < lanes; ++lane)
      tolerance[lane] = std::max(tolerance[lane], std::abs(table[row * lanes + lane]));
  for (int lane = 0; lane < lanes; ++lane)
    tolerance[lane] *= T(0x1p-16) * std::numeric_limits<T>::epsilon();
}

/// Add a box to the sum of open boxes, which is the constant current j = high + low (double-word
/// arithmetic). When the last box closes the sum returns to `rest` exactly, as in
/// jaxsnn/event/forward/box_levels.py. A box of weight W adds W when it opens and -W when it
/// closes.
template <class T>
inline void update_box_sum(Vector<T>& high, Vector<T>& low, Vector<T> weight, Vector<T> rest,
                           Vector<T> tolerance) {
  using V = Vector<T>;
  const V zero = {}, sum = high + weight, added = sum - high;
  const V error = ((high - (sum - added)) + (weight - added)) + low;
  const V level = sum + error, level_added = level - sum;
  const V residual = (sum - (level - level_added)) + (error - level_added),
          distance = (level - rest) + residual;
  const auto closed = (distance < zero ? -distance : distance) <= tolerance;
  high = closed ? rest : level;
  low = closed ? zero : residual;
}

/// Rows of the weights are prefetched this many intervals ahead.
constexpr Index kPrefetchDistance = 3;

template <class T, int kVectors>
inline void prefetch_row(const T* row) {
  for (int q = 0; q < kVectors; ++q) __builtin_prefetch(row + q * kWidth<T>);
}

// ---- results

/// Spikes; arrays (batch, neurons, max_spikes), count (batch, neurons). `slope_after` is written
/// only if a spike sets v. `cause` is written only if arrivals increment v: the number of the
/// arrival (counted from 1 in sorted order) that made the neuron fire, or 0.
template <class T>
struct Spikes {
  T* time;
  T* slope;
  T* slope_after;
  std::int32_t* count;
  std::int32_t* cause = nullptr;
};

/// Spikes of the forward pass, and the cotangent dL/dt of each.
template <class T>
struct ForwardSpikes {
  const T* time;
  const T* slope;
  const T* slope_after;
  const T* cotangent;
  const std::int32_t* cause = nullptr;
};

/// Gradients; null for those that are not needed.
template <class T>
struct Gradients {
  T* weight;      // (rows, neurons)
  T* parameters;  // (fields, positions, neurons)
  Index fields;   // kFields, or kFieldsWithoutTaus if the time constants need no gradient
  T* time;        // (batch, arrivals), by slot

  bool with_taus() const { return parameters && fields == kFields; }
};

/// Units of work: one tile of neurons through one chunk of the batch.
struct WorkUnits {
  Index tiles, chunks, batch;
  Index size() const { return tiles * chunks; }
  // chunks of the same tile, which read the same weights, are adjacent
  Index tile(Index unit) const { return unit / chunks; }
  Index chunk(Index unit) const { return unit % chunks; }
  Index index(Index tile, Index chunk) const { return tile * chunks + chunk; }
  Index begin(Index chunk) const { return batch * chunk / chunks; }
};

/// Number of partial gradients; fixed, so that the order of summation does not depend on the
/// threads.
constexpr Index kPartialGradients = 16;

/// Call with the number of vectors in a tile, as a compile-time constant.
template <class T, class Call>
void dispatch_tile_width(Index neurons, Call&& call) {
  if (neurons <= kWidth<T>) return call(std::integral_constant<int, 1>());
  if (neurons <= 2 * kWidth<T>) return call(std::integral_constant<int, 2>());
  if constexpr (kMaxVectors == 8)
    if (neurons > 4 * kWidth<T>) return call(std::integral_constant<int, 8>());
  return call(std::integral_constant<int, 4>());
}

}  // namespace native
