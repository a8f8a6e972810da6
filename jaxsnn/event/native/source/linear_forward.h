// Forward pass of a population of linear neurons (linear.h) without recurrent connections.
//
// The passage through the arrivals is that of layer_forward.h: a tile of neurons of one sample keeps
// its state in registers, and in each interval a bound selects the lanes that may cross the
// threshold. These are simulated one by one in double precision:
//
// 1. The interval is divided into halves, their halves, and so on, down to leaves over which a
//    Taylor series of the state converges at once. A part whose bound lies below the threshold is
//    skipped as a whole.
// 2. In a leaf x[0] is a polynomial. Its first root is a spike, after which a new series starts.

#pragma once

#include "linear.h"

namespace native {

/// Return the factor of an entry of |x| in the bound of x[0], with the rounding error of x[0].
template <class T>
inline T bound_of(double curvature, double flow, double t) {
  return T(std::min(curvature * t * t / 8 + 4 * rounding_of(T()) * flow, 1e30));
}

/// Flow over the intervals of all samples, if it is the same for all neurons: for each interval the
/// matrix exp(A t) row by row, then the row of numbers b for which x[0] exceeds the larger of its
/// values at the ends by at most b |x|.
template <class T, int D>
class LinearSteps {
 public:
  static constexpr Index kSize = D * D + D;

  LinearSteps(const LinearPopulation<T, D>& population, const ArrivalIntervals<T>& intervals,
              Index batch, Index threads)
      : offset_(batch + 1) {
    offset_[0] = 0;
    for (Index sample = 0; sample < batch; ++sample)
      offset_[sample + 1] = offset_[sample] + intervals.used(sample) + 1;
    if (!population.uniform) return;
    steps_ = Array<T>(offset_[batch] * kSize);
    ThreadPool::shared().run_batched(
        batch, ThreadPool::useful_threads(threads, 64 * offset_[batch]), [&](Index sample) {
          compute(population, intervals.edges(sample), intervals.used(sample) + 1,
                  steps_.data() + offset_[sample] * kSize);
        });
  }

  const T* of(Index sample) const { return steps_.data() + offset_[sample] * kSize; }

 private:
  /// Compute the flow over several intervals at once, one in each lane.
  static void compute(const LinearPopulation<T, D>& population,
                      const typename ArrivalIntervals<T>::Edges& edges, Index count, T* steps) {
    const Matrix<D>& a = population.neurons[0].a;
    const FlowBounds<D>& bounds = population.bounds[0];
    for (Index first = 0; first < count; first += kWidth<double>) {
      const int lanes = int(std::min<Index>(kWidth<double>, count - first));
      DoubleVector t = {};
      double longest = 0;
      for (int n = 0; n < lanes; ++n) {
        t[n] = std::max(edges[first + n + 1] - edges[first + n], 0.0);
        longest = std::max<double>(longest, t[n]);
      }
      Matrix<D, DoubleVector> x;
      for (int n = 0; n < D * D; ++n) x.m[n] = a.m[n] * t;
      Exponential1<D, DoubleVector> flow;
      flow.compute(x, nullptr, 0, population.norm * longest, series_tolerance(T()));
      for (int n = 0; n < lanes; ++n, steps += kSize) {
        for (int row = 0; row < D; ++row)
          for (int column = 0; column < D; ++column)
            steps[row * D + column] = T(flow.value(row, column)[n] + (row == column));
        const int index = bounds.index(t[n]);
        for (int k = 0; k < D; ++k)
          steps[D * D + k] = bound_of<T>(bounds.curvature[index][k], bounds.flow[index][k], t[n]);
      }
    }
  }

  Array<Index> offset_;
  Array<T> steps_;
};

/// Adjacent neurons, padded with neurons that never fire.
template <class T, int D, int kVectors>
struct LinearTile {
  static constexpr int kLanes = kVectors * kWidth<T>;
  using V = Vector<T>;

  int count;
  alignas(64) T threshold[kLanes];
  alignas(64) T start[D][kLanes];
  alignas(64) double a[D * D][kLanes];
  const LinearPopulation<T, D>& population;
  Index first;

  LinearTile(const LinearPopulation<T, D>& all, Index first_neuron)
      : population(all), first(first_neuron) {
    count = int(std::min<Index>(kLanes, Index(all.neurons.size()) - first));
    for (int lane = 0; lane < kLanes; ++lane) {
      const LinearNeuron<D>& neuron = all.neurons[first + std::min(lane, count - 1)];
      threshold[lane] =
          lane < count ? T(neuron.threshold) : std::numeric_limits<T>::infinity();
      for (int n = 0; n < D; ++n) start[n][lane] = lane < count ? T(neuron.start[n]) : T(0);
      for (int n = 0; n < D * D; ++n) a[n][lane] = neuron.a.m[n];
    }
  }

  const LinearNeuron<D>& neuron(int lane) const { return population.neurons[first + lane]; }

  /// Compute the flow over a time for neurons with separate matrices. flow: (D * D, kLanes).
  void compute_flow(double t, T (*flow)[kLanes]) const {
    t = std::max(t, 0.0);
    for (int lane = 0; lane < kLanes; lane += kWidth<double>) {
      Matrix<D, DoubleVector> x;
      for (int n = 0; n < D * D; ++n) x.m[n] = load<double>(a[n] + lane) * t;
      Exponential1<D, DoubleVector> exponential;
      exponential.compute(x, nullptr, 0, population.norm * t, series_tolerance(T()));
      for (int n = 0; n < D * D; ++n)
        for (int k = 0; k < kWidth<double>; ++k)
          flow[n][lane + k] = T(exponential.value.m[n][k] + (n % (D + 1) == 0));
    }
  }

  /// Bounds of `FlowBounds` by time, (times, D, kLanes): the times are the same for all neurons.
  std::vector<std::array<std::array<double, kLanes>, D>> flow_bounds, curvature_bounds;

  /// Store the bounds of neurons with separate matrices.
  void store_bounds() {
    const std::size_t times = population.bounds[0].flow.size();
    flow_bounds.resize(times);
    curvature_bounds.resize(times);
    for (int lane = 0; lane < kLanes; ++lane) {
      const FlowBounds<D>& bounds = population.bounds_of(first + std::min(lane, count - 1));
      for (std::size_t index = 0; index < times; ++index)
        for (int k = 0; k < D; ++k) {
          flow_bounds[index][k][lane] = bounds.flow[index][k];
          curvature_bounds[index][k][lane] = bounds.curvature[index][k];
        }
    }
  }

  /// Compute the bounds of `LinearSteps`. bounds: (D, kLanes).
  void compute_bounds(double t, T (*bounds)[kLanes]) const {
    t = std::max(t, 0.0);
    const int index = population.bounds[0].index(t);
    for (int k = 0; k < D; ++k)
      for (int lane = 0; lane < kLanes; ++lane)
        bounds[k][lane] =
            bound_of<T>(curvature_bounds[index][k][lane], flow_bounds[index][k][lane], t);
  }
};

/// One tile of neurons of one sample, through all arrivals.
template <class T, int D, int kVectors, bool kUniform>
class LinearTileForward {
  using V = Vector<T>;
  using Bits = std::uint64_t;
  using Tile = LinearTile<T, D, kVectors>;
  static constexpr int kLanes = Tile::kLanes;

 public:
  LinearTileForward(const Population<T>& population, const Options& options,
                    const ArrivalIntervals<T>& intervals, const LinearSteps<T, D>& steps,
                    const LinearSpikes<T>& spikes)
      : population_(population),
        options_(options),
        intervals_(intervals),
        steps_(steps),
        spikes_(spikes) {}

  void run(const Tile& tile, const T* table, Index sample) {
    tile_ = &tile;
    edges_ = intervals_.edges(sample);
    first_result_ = sample * population_.neurons + tile.first;
    flows_interval_ = -1;
    alive_ = (Bits(1) << tile.count) - 1;
    const Index slots = options_.max_spikes, first_slot = first_result_ * slots;
    std::fill_n(spikes_.time + first_slot, tile.count * slots, std::numeric_limits<T>::infinity());
    std::fill_n(spikes_.slope + first_slot, tile.count * slots, T(1));
    std::fill_n(spikes_.state + first_slot * D, tile.count * slots * D, T(0));
    std::fill_n(spikes_.count + first_result_, tile.count, 0);
    std::memcpy(threshold_, tile.threshold, sizeof(threshold_));
    walk(table, sample);
  }

 private:
  void walk(const T* table, Index sample) {
    const Tile& tile = *tile_;
    V x[D][kVectors], threshold[kVectors];
    std::memcpy(x, tile.start, sizeof(x));
    std::memcpy(threshold, threshold_, sizeof(threshold));
    const Index used = intervals_.used(sample);
    const auto rows = intervals_.rows(sample);
    const T* step = kUniform ? steps_.of(sample) : nullptr;
    alignas(64) T flow[D * D][kLanes], bounds[D][kLanes];  // not uniform: of this interval
    for (Index interval = 0; interval <= used; ++interval) {
      const T* weights = table + rows[interval] * kLanes;
      prefetch_row<T, kVectors>(table + rows.at_clamped(interval + kPrefetchDistance) * kLanes);
      if constexpr (!kUniform) {
        const double t = edges_[interval + 1] - edges_[interval];
        tile.compute_flow(t, flow);
        tile.compute_bounds(t, bounds);
      }
      V after[D][kVectors];
      Bits candidates = 0;
      for (int q = 0; q < kVectors; ++q) {
        const int lane = q * kWidth<T>;
        const V arriving = load<T>(weights + lane);
        for (int n = 0; n < D; ++n)
          if (tile.population.arrival[n] != 0) x[n][q] += arriving * T(tile.population.arrival[n]);
        V bound = {};
        for (int row = 0; row < D; ++row) {
          V sum = {};
          for (int n = 0; n < D; ++n)
            if constexpr (kUniform)
              sum += step[row * D + n] * x[n][q];
            else
              sum += load<T>(flow[row * D + n] + lane) * x[n][q];
          after[row][q] = sum;
          if constexpr (kUniform)
            bound += step[D * D + row] * absolute(x[row][q]);
          else
            bound += load<T>(bounds[row] + lane) * absolute(x[row][q]);
        }
        const V now = x[0][q], end = after[0][q];
        candidates |= Bits(at_least((now > end ? now : end) + bound, threshold[q])) << lane;
      }
      if (kUniform) step += LinearSteps<T, D>::kSize;
      candidates &= alive_;
      if (__builtin_expect(candidates != 0, 0)) {
        alignas(64) T at_start[D][kLanes];
        std::memcpy(at_start, x, sizeof(x));
        const Bits alive = alive_;
        for (; candidates; candidates &= candidates - 1) {
          const int lane = __builtin_ctzll(candidates);
          double state[D];
          for (int n = 0; n < D; ++n) state[n] = at_start[n][lane];
          simulate_interval(lane, interval, state);
          for (int n = 0; n < D; ++n)
            for (int q = 0; q < kVectors; ++q)
              set_lane<T>(after[n][q], lane - q * kWidth<T>, T(state[n]));
        }
        if (!alive_) return;
        if (alive_ != alive) std::memcpy(threshold, threshold_, sizeof(threshold));
      }
      std::memcpy(x, after, sizeof(x));
    }
    // A state that is NaN stays NaN. It never fires, so report it in place of the spikes.
    for (int lane = 0; lane < tile.count; ++lane)
      for (int n = 0; n < D; ++n)
        if (std::isnan(reinterpret_cast<const T*>(x[n])[lane]))
          std::fill_n(spikes_.time + (first_result_ + lane) * options_.max_spikes,
                      options_.max_spikes, std::numeric_limits<T>::quiet_NaN());
  }

  /// Simulate one neuron through an interval with all its spikes.
  __attribute__((noinline)) void simulate_interval(int lane, Index interval, double (&x)[D]) {
    const LinearNeuron<D>& neuron = tile_->neuron(lane);
    const double start = edges_[interval], duration = std::max(edges_[interval + 1] - start, 0.0);
    const int levels = halvings(neuron.norm * duration, kSeriesRadius);
    const double leaf = std::ldexp(duration, -levels);
    if (levels == 0) {
      simulate_leaf(lane, interval, 0, leaf, x);
    } else {
      if (!kUniform || flows_interval_ != interval) {
        flows_interval_ = interval;
        Exponential1<D, double> flow;
        flow.sum_series(scaled(neuron.a, leaf), nullptr, 0, neuron.norm * leaf,
                        series_tolerance(T()));
        for (int n = 0; n <= levels; ++n) {
          flows_[n] = flow.value;
          flow.square(0);
        }
      }
      const std::uint64_t leaves = std::uint64_t(1) << levels;
      const FlowBounds<D>& bounds = tile_->population.bounds_of(tile_->first + lane);
      for (std::uint64_t position = 0; position < leaves && is_finite(x);) {
        int size = position ? __builtin_ctzll(position) : levels;
        double bend[D], after[D];
        apply(neuron.a_squared, x, bend);
        for (;; --size) {
          const double length = std::ldexp(leaf, size);
          apply(flows_[size], x, after);
          double deviation = 0;
          const int index = bounds.index(length);
          for (int n = 0; n < D; ++n) {
            after[n] += x[n];
            deviation += bounds.flow[index][n] * std::abs(bend[n]);
          }
          if (std::max(x[0], after[0]) + deviation * length * length / 8 < neuron.threshold) {
            std::copy_n(after, D, x);
            break;
          }
          if (size == 0) {
            if (!simulate_leaf(lane, interval, double(position) * leaf, leaf, x)) return;
            break;
          }
        }
        position += std::uint64_t(1) << size;
      }
    }
    // The neuron has not reached the threshold: rounding of the state must not put it there.
    const T threshold = T(neuron.threshold);
    if (x[0] < neuron.threshold && T(x[0]) >= threshold)
      x[0] = std::nextafter(threshold, -std::numeric_limits<T>::infinity());
  }

  /// Simulate one neuron through a time in which its Taylor series converges; false if it is no
  /// longer simulated. `elapsed`: time since the start of the interval.
  bool simulate_leaf(int lane, Index interval, double elapsed, double time_left, double (&x)[D]) {
    const LinearNeuron<D>& neuron = tile_->neuron(lane);
    const Index slots = options_.max_spikes;
    std::int32_t& count = spikes_.count[first_result_ + lane];
    for (;;) {
      double before[D];
      if (x[0] >= neuron.threshold) {
        std::copy_n(x, D, before);
      } else {
        const StateSeries<D> series(neuron.a, x, time_left, neuron.norm, series_tolerance(T()));
        double coefficients[kMaxTerms];
        for (int k = 0; k <= series.degree; ++k) coefficients[k] = series.terms[k][0];
        coefficients[0] -= neuron.threshold;
        const double root = Polynomial(coefficients, series.degree).first_root();
        if (root < 0) {
          series.at(1, x);
          return true;
        }
        series.at(root, before);
        elapsed += root * time_left;
        time_left -= root * time_left;
        before[0] = neuron.threshold;
      }
      if (count < slots) {
        const double start = edges_[interval];
        const Index slot = (first_result_ + lane) * slots + count;
        const double time = std::min(start + elapsed, edges_[interval + 1]);
        double rate[D];
        apply(neuron.a, before, rate);
        spikes_.time[slot] = after_arrival<T>(start, elapsed, time);
        spikes_.slope[slot] = T(rate[0]);
        for (int n = 0; n < D; ++n) spikes_.state[slot * D + n] = T(before[n]);
      }
      ++count;
      if (options_.once || count >= options_.max_counted) {
        threshold_[lane] = std::numeric_limits<T>::infinity();
        alive_ &= ~(Bits(1) << lane);
        return false;
      }
      neuron.after_spike(before, x);
    }
  }

  const Population<T>& population_;
  const Options& options_;
  const ArrivalIntervals<T>& intervals_;
  const LinearSteps<T, D>& steps_;
  const LinearSpikes<T>& spikes_;
  const Tile* tile_ = nullptr;
  typename ArrivalIntervals<T>::Edges edges_;
  Index first_result_ = 0;
  // exp(A t) - 1 over 2^n leaves of an interval, for the neuron that was simulated last
  Matrix<D> flows_[kMaxHalvings + 1];
  Index flows_interval_ = -1;
  Bits alive_ = 0;                   // lanes still simulated
  alignas(64) T threshold_[kLanes];  // inf for neurons that are no longer simulated
};

/// Simulate a population and write its spikes. arrival: the vector e, (D,).
template <class T, int D>
void linear_forward(const Population<T>& population, const T* arrival, const Options& options,
                    const SortedArrivals<T>& sorted, const LinearSpikes<T>& spikes) {
  if (population.batch == 0 || population.neurons == 0) return;
  const ArrivalIntervals<T> intervals(population, sorted);
  const LinearPopulation<T, D> neurons(population, arrival, true);
  const LinearSteps<T, D> steps(neurons, intervals, population.batch, options.threads);
  constexpr int kVectors = kLinearVectors, kLanes = kVectors * kWidth<T>;
  const Index tiles = (population.neurons + kLanes - 1) / kLanes,
              size = (population.rows + 1) * kLanes;
  Array<T> tables(tiles * size);
  std::vector<LinearTile<T, D, kVectors>> all_tiles;
  all_tiles.reserve(tiles);
  for (Index tile = 0; tile < tiles; ++tile) {
    all_tiles.emplace_back(neurons, tile * kLanes);
    if (!neurons.uniform) all_tiles[tile].store_bounds();
  }
  ThreadPool::shared().run(
      tiles, ThreadPool::useful_threads(options.threads, tables.size()), [&](Index tile) {
        pack_weights(population, tile * kLanes, kLanes, tables.data() + tile * size);
      });
  const Index min_units = std::max<Index>(32, 8 * options.threads);
  const WorkUnits units{tiles, std::min((min_units + tiles - 1) / tiles, population.batch),
                        population.batch};
  const auto run_unit = [&](auto uniform, Index unit) {
    LinearTileForward<T, D, kVectors, decltype(uniform)::value> forward(
        population, options, intervals, steps, spikes);
    const Index tile = units.tile(unit), chunk = units.chunk(unit);
    for (Index sample = units.begin(chunk); sample < units.begin(chunk + 1); ++sample)
      forward.run(all_tiles[tile], tables.data() + tile * size, sample);
  };
  ThreadPool::shared().run(units.size(), options.threads, [&](Index unit) {
    neurons.uniform ? run_unit(std::true_type(), unit) : run_unit(std::false_type(), unit);
  });
}

}  // namespace native
