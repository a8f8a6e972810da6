// Backward pass of a population of linear neurons (linear.h): EventProp with the state at spikes.
//
// The costate p = dL/dx goes back in time by p' = -A^T p. At a spike, with the states x- and x+ before
// and after it, the derivative s = (A x-)[0] of x[0], and the cotangent E = dL/dt of the spike:
//
//     p- = R^T p+ + mu e_0,   mu = -(E + p+ . (R A x- - A x+)) / s.
//
// The gradients are p+ x-^T for R, p+ for r, -mu for the threshold, p . e summed over the arrivals of a
// row for the weights, and -w p . A e for the time of an arrival of weight w. For a parameter f of A
// the derivative of the costate between its jumps, Q_f = dp/df, goes back with it: x consists of
// contributions of the initial state, of arrivals and of jumps at spikes, and the gradient is the sum of
// Q_f . contribution.

#pragma once

#include "layer_backward.h"
#include "linear_forward.h"

namespace native {

/// Spikes of the forward pass, and the cotangent dL/dt of each.
template <class T>
struct LinearForwardSpikes {
  const T* time;
  const T* slope;
  const T* state;
  const T* cotangent;
};

/// Gradients; null for those that are not needed.
template <class T>
struct LinearGradients {
  T* weight;        // (rows, neurons)
  T* levels;        // (fields, neurons), those of `LinearFields` from kResetMatrix to kThreshold
  T* flow;          // (parameters, neurons)
  T* time;          // (batch, arrivals), by slot
  const T* a_by;    // dA/df, (parameters, D * D, neurons)
  Index parameters = 0;
};

/// Flow and its derivatives over the intervals of one sample, if they are the same for all neurons:
/// for each interval exp(A t), then its derivative by each parameter, all row by row.
template <class T, int D>
class LinearBackwardSteps {
 public:
  LinearBackwardSteps(const LinearPopulation<T, D>& population,
                      const std::vector<Matrix<D>>& a_by, Index parameters,
                      const ArrivalIntervals<T>& intervals, Index batch, Index threads)
      : offset_(batch + 1), size_(D * D * (1 + parameters)) {
    offset_[0] = 0;
    for (Index sample = 0; sample < batch; ++sample)
      offset_[sample + 1] = offset_[sample] + intervals.used(sample) + 1;
    if (!population.uniform) return;
    steps_ = Array<T>(offset_[batch] * size_);
    ThreadPool::shared().run_batched(
        batch, ThreadPool::useful_threads(threads, 64 * offset_[batch]), [&](Index sample) {
          const auto edges = intervals.edges(sample);
          const Index count = intervals.used(sample) + 1;
          T* steps = steps_.data() + offset_[sample] * size_;
          for (Index first = 0; first < count; first += kWidth<double>) {
            const int lanes = int(std::min<Index>(kWidth<double>, count - first));
            DoubleVector t = {};
            double longest = 0;
            for (int n = 0; n < lanes; ++n) {
              t[n] = std::max(edges[first + n + 1] - edges[first + n], 0.0);
              longest = std::max<double>(longest, t[n]);
            }
            Matrix<D, DoubleVector> x, dx[kMaxFlowParameters];
            for (int n = 0; n < D * D; ++n) x.m[n] = population.neurons[0].a.m[n] * t;
            for (Index f = 0; f < parameters; ++f)
              for (int n = 0; n < D * D; ++n) dx[f].m[n] = a_by[f].m[n] * t;
            Exponential1<D, DoubleVector> flow;
            flow.compute(x, dx, parameters, population.norm * longest, series_tolerance(T()));
            for (int lane = 0; lane < lanes; ++lane, steps += size_)
              for (int n = 0; n < D * D; ++n) {
                steps[n] = T(flow.value.m[n][lane] + (n % (D + 1) == 0));
                for (Index f = 0; f < parameters; ++f)
                  steps[(1 + f) * D * D + n] = T(flow.by[f].m[n][lane]);
              }
          }
        });
  }

  const T* of(Index sample) const { return steps_.data() + offset_[sample] * size_; }
  Index size() const { return size_; }

 private:
  Array<Index> offset_;
  Index size_;
  Array<T> steps_;
};

/// One tile of neurons of one sample, backwards through its arrivals.
template <class T, int D, int kVectors, bool kUniform>
class LinearTileBackward {
  using V = Vector<T>;
  using Bits = std::uint64_t;
  using Tile = LinearTile<T, D, kVectors>;
  using Fields = LinearFields<D>;
  static constexpr int kLanes = Tile::kLanes;

 public:
  LinearTileBackward(const Population<T>& population, const Options& options,
                     const ArrivalIntervals<T>& intervals,
                     const LinearBackwardSteps<T, D>& steps, const SortedArrivals<T>& sorted,
                     const LinearForwardSpikes<T>& spikes, const std::vector<Matrix<D>>& a_by,
                     Index parameters)
      : population_(population),
        options_(options),
        intervals_(intervals),
        steps_(steps),
        sorted_(sorted),
        spikes_(spikes),
        a_by_(a_by),
        parameters_(parameters) {}

  /// Add to the gradients: by_weight (rows + 1, kLanes); by_time (arrivals,) in sorted order, or null;
  /// by_level (fields, kLanes) and by_flow (parameters, kLanes), or null.
  void run(const Tile& tile, const T* table, Index sample, T* by_weight, T* by_time,
           double* by_level, double* by_flow) {
    tile_ = &tile;
    edges_ = intervals_.edges(sample);
    first_result_ = sample * population_.neurons + tile.first;
    by_level_ = by_level;
    by_flow_ = by_flow;
    times_ = sorted_.time + sorted_.first(sample);
    const Index slots = options_.max_spikes;
    pending_lanes_.assign(intervals_.used(sample) + 1, 0);
    Index last = -1;
    for (int lane = 0; lane < tile.count; ++lane) {
      const T* times = spikes_.time + (first_result_ + lane) * slots;
      Index count = 0;
      while (count < slots && times[count] < std::numeric_limits<T>::infinity()) ++count;
      slot_[lane] = count - 1;
      if (count == 0) continue;
      const Index interval =
          count_before(times_, intervals_.used(sample), double(times[count - 1]));
      pending_lanes_[interval] |= Bits(1) << lane;
      last = std::max(last, interval);
    }
    if (last < 0) return;  // without spikes all costates are 0
    walk(table, sample, last, by_weight, by_time);
  }

 private:
  /// Costates of one neuron: p and Q_f.
  struct Costate {
    double p[D];
    double by[kMaxFlowParameters][D];
  };

  void walk(const T* table, Index sample, Index last, T* by_weight, T* by_time) {
    const Tile& tile = *tile_;
    const double(&arrival)[D] = tile.population.arrival;
    const int parameters = int(parameters_);
    V p[D][kVectors] = {};
    V by[kMaxFlowParameters * D][kVectors];       // Q_f
    V of_arrivals[kMaxFlowParameters][kVectors];  // Q_f . w e
    std::memset(by, 0, sizeof(by));
    std::memset(of_arrivals, 0, sizeof(of_arrivals));
    alignas(64) T arrival_rate[D][kLanes];  // A e
    if (by_time)
      for (int lane = 0; lane < kLanes; ++lane) {
        double rate[D];
        apply(tile.neuron(std::min(lane, tile.count - 1)).a, arrival, rate);
        for (int n = 0; n < D; ++n) arrival_rate[n][lane] = T(rate[n]);
      }
    const auto rows = intervals_.rows(sample);
    Array<T> own_flow(kUniform ? 0 : D * D * (1 + parameters) * kLanes);
    for (Index interval = last; interval >= 0; --interval) {
      prefetch_row<T, kVectors>(by_weight + rows.at_clamped(interval - kPrefetchDistance) * kLanes);
      const T* step = kUniform ? steps_.of(sample) + interval * steps_.size() : own_flow.data();
      if (!kUniform) compute_flow(edges_[interval + 1] - edges_[interval], own_flow.data());
      const Bits events = pending_lanes_[interval];
      alignas(64) T at_end[(1 + kMaxFlowParameters) * D][kLanes];
      if (__builtin_expect(events != 0, 0)) {
        std::memcpy(at_end, p, sizeof(p));
        std::memcpy(at_end[D], by, parameters * D * sizeof(by[0]));
      }
      for (int q = 0; q < kVectors; ++q) {
        // coefficient n of a matrix of the step, for the neurons of the vector
        const auto factor = [&](const T* matrix, int n) {
          if constexpr (kUniform)
            return broadcast(matrix[n]);
          else
            return load<T>(matrix + n * kLanes + q * kWidth<T>);
        };
        const auto transposed = [&](const T* matrix, const V* values, int column) {
          V sum = factor(matrix, column) * values[0];
          for (int n = 1; n < D; ++n) sum += factor(matrix, n * D + column) * values[n];
          return sum;
        };
        V costate[D], next[D];
        for (int n = 0; n < D; ++n) costate[n] = p[n][q];
        for (int f = 0; f < parameters; ++f) {
          const T* change = step + (1 + f) * D * D * (kUniform ? 1 : kLanes);
          V derivative[D];
          for (int n = 0; n < D; ++n) derivative[n] = by[f * D + n][q];
          for (int n = 0; n < D; ++n)
            by[f * D + n][q] = transposed(step, derivative, n) + transposed(change, costate, n);
        }
        for (int n = 0; n < D; ++n) next[n] = transposed(step, costate, n);
        for (int n = 0; n < D; ++n) p[n][q] = next[n];
      }
      if (__builtin_expect(events != 0, 0)) {
        for (Bits lanes = events; lanes; lanes &= lanes - 1) {
          const int lane = __builtin_ctzll(lanes);
          Costate costate;
          for (int n = 0; n < D; ++n) costate.p[n] = at_end[n][lane];
          for (int f = 0; f < parameters; ++f)
            for (int n = 0; n < D; ++n) costate.by[f][n] = at_end[(1 + f) * D + n][lane];
          propagate_interval(lane, interval, costate);
          for (int q = 0; q < kVectors; ++q)
            for (int n = 0; n < D; ++n) {
              set_lane<T>(p[n][q], lane - q * kWidth<T>, T(costate.p[n]));
              for (int f = 0; f < parameters; ++f)
                set_lane<T>(by[f * D + n][q], lane - q * kWidth<T>, T(costate.by[f][n]));
            }
        }
      }
      if (interval == 0) break;
      const Index row = rows[interval];
      T* gradient_row = by_weight + row * kLanes;
      V time_gradient = {};
      for (int q = 0; q < kVectors; ++q) {
        const int lane = q * kWidth<T>;
        V gradient = load<T>(gradient_row + lane);
        for (int n = 0; n < D; ++n)
          if (arrival[n] != 0) gradient += p[n][q] * T(arrival[n]);
        store<T>(gradient_row + lane, gradient);
        if (!by_time && !parameters) continue;
        const V weights = load<T>(table + row * kLanes + lane);
        for (int f = 0; f < parameters; ++f)
          for (int n = 0; n < D; ++n)
            if (arrival[n] != 0)
              of_arrivals[f][q] += weights * by[f * D + n][q] * T(arrival[n]);
        if (by_time)
          for (int n = 0; n < D; ++n)
            time_gradient -= weights * p[n][q] * load<T>(arrival_rate[n] + lane);
      }
      if (by_time) by_time[interval - 1] += horizontal_sum(time_gradient);
    }
    for (int lane = 0; lane < tile.count; ++lane) {
      const LinearNeuron<D>& neuron = tile.neuron(lane);
      const auto of_lane = [&](const V* vectors) {
        return double(reinterpret_cast<const T*>(vectors)[lane]);
      };
      for (int n = 0; n < D; ++n) {
        if (by_level_) level(Fields::kStart + n, lane) += of_lane(p[n]);
        for (int f = 0; f < parameters; ++f)
          by_flow_[f * kLanes + lane] += of_lane(by[f * D + n]) * neuron.start[n];
      }
      for (int f = 0; f < parameters; ++f) by_flow_[f * kLanes + lane] += of_lane(of_arrivals[f]);
    }
  }

  double& level(Index field, int lane) {
    return by_level_[(field - Fields::kResetMatrix) * kLanes + lane];
  }

  const Matrix<D>& a_by(int lane, Index f) const {
    return a_by_[(tile_->first + lane) * parameters_ + f];
  }

  /// Compute the flow over a time, and its derivatives, for neurons with separate matrices.
  void compute_flow(double t, T* flow) const {
    t = std::max(t, 0.0);
    for (int lane = 0; lane < kLanes; lane += kWidth<double>) {
      Matrix<D, DoubleVector> x, dx[kMaxFlowParameters];
      for (int n = 0; n < D * D; ++n) {
        x.m[n] = load<double>(tile_->a[n] + lane) * t;
        for (Index f = 0; f < parameters_; ++f)
          for (int k = 0; k < kWidth<double>; ++k)
            dx[f].m[n][k] = a_by(std::min(lane + k, tile_->count - 1), f).m[n] * t;
      }
      Exponential1<D, DoubleVector> exponential;
      exponential.compute(x, dx, parameters_, tile_->population.norm * t, series_tolerance(T()));
      for (int n = 0; n < D * D; ++n)
        for (int k = 0; k < kWidth<double>; ++k) {
          flow[n * kLanes + lane + k] = T(exponential.value.m[n][k] + (n % (D + 1) == 0));
          for (Index f = 0; f < parameters_; ++f)
            flow[((1 + f) * D * D + n) * kLanes + lane + k] = T(exponential.by[f].m[n][k]);
        }
    }
  }

  /// Propagate a neuron with spikes in an interval from its end to its start.
  void propagate_interval(int lane, Index interval, Costate& costate) {
    const T* times = spikes_.time + (first_result_ + lane) * options_.max_spikes;
    double time = edges_[interval + 1];
    for (;;) {
      const double spike_time = times[slot_[lane]];
      flow_back(lane, time - spike_time, costate);
      time = spike_time;
      propagate_spike(lane, slot_[lane], costate);
      if (--slot_[lane] < 0) break;
      const Index earlier = count_before(times_, interval, double(times[slot_[lane]]));
      if (earlier == interval) continue;
      pending_lanes_[earlier] |= Bits(1) << lane;
      break;
    }
    flow_back(lane, time - edges_[interval], costate);
  }

  void flow_back(int lane, double duration, Costate& costate) const {
    if (!(duration > 0)) return;
    const LinearNeuron<D>& neuron = tile_->neuron(lane);
    const double norm = neuron.norm_transposed * duration;
    if (parameters_ == 0 && norm <= kSeriesRadius) {
      const StateSeries<D> series(neuron.a_transposed, costate.p, duration,
                                  neuron.norm_transposed, series_tolerance(T()));
      return series.at(1, costate.p);
    }
    Matrix<D> dx[kMaxFlowParameters];
    for (Index f = 0; f < parameters_; ++f) dx[f] = scaled(a_by(lane, f), duration);
    Exponential1<D, double> flow;
    flow.compute(scaled(neuron.a, duration), dx, parameters_, neuron.norm * duration,
                 series_tolerance(T()));
    double change[D], carried[D];
    for (Index f = 0; f < parameters_; ++f) {
      apply_transposed(flow.value, costate.by[f], carried);
      apply_transposed(flow.by[f], costate.p, change);
      for (int n = 0; n < D; ++n) costate.by[f][n] += carried[n] + change[n];
    }
    apply_transposed(flow.value, costate.p, change);
    for (int n = 0; n < D; ++n) costate.p[n] += change[n];
  }

  void propagate_spike(int lane, Index slot, Costate& costate) {
    const LinearNeuron<D>& neuron = tile_->neuron(lane);
    const Index offset = (first_result_ + lane) * options_.max_spikes + slot;
    double before[D], after[D], rate_before[D], rate_after[D], moved[D];
    for (int n = 0; n < D; ++n) before[n] = spikes_.state[offset * D + n];
    neuron.after_spike(before, after);
    apply(neuron.a, before, rate_before);
    apply(neuron.a, after, rate_after);
    apply(neuron.reset, rate_before, moved);
    double drive = spikes_.cotangent[offset];
    for (int n = 0; n < D; ++n) drive += costate.p[n] * (moved[n] - rate_after[n]);
    // A neuron that starts above its threshold fires at time 0, whatever its exact parameters.
    const bool fired_at_start = neuron.starts_above && slot == 0 && spikes_.time[offset] == 0;
    const double slope = std::max<double>(spikes_.slope[offset], neuron.slope_floor);
    const double mu = fired_at_start ? 0.0 : -drive / slope;
    if (by_level_) {
      level(Fields::kThreshold, lane) -= mu;
      for (int n = 0; n < D; ++n) {
        level(Fields::kResetOffset + n, lane) += costate.p[n];
        for (int k = 0; k < D; ++k)
          level(Fields::kResetMatrix + n * D + k, lane) += costate.p[n] * before[k];
      }
    }
    for (Index f = 0; f < parameters_; ++f)
      for (int n = 0; n < D; ++n)
        by_flow_[f * kLanes + lane] += costate.by[f][n] * (after[n] - before[n]);
    apply_transposed(neuron.reset, costate.p, moved);
    std::copy_n(moved, D, costate.p);
    costate.p[0] += mu;
  }

  const Population<T>& population_;
  const Options& options_;
  const ArrivalIntervals<T>& intervals_;
  const LinearBackwardSteps<T, D>& steps_;
  const SortedArrivals<T>& sorted_;
  const LinearForwardSpikes<T>& spikes_;
  const std::vector<Matrix<D>>& a_by_;
  const Index parameters_;
  const Tile* tile_ = nullptr;
  typename ArrivalIntervals<T>::Edges edges_;
  const T* times_ = nullptr;  // of the arrivals
  Index first_result_ = 0;
  double* by_level_ = nullptr;
  double* by_flow_ = nullptr;
  std::vector<Bits> pending_lanes_;  // for each interval, the lanes whose next spike lies there
  Index slot_[kLanes];               // next spike of each neuron
};

/// Compute the gradients. arrival: the vector e, (D,).
template <class T, int D>
void linear_backward(const Population<T>& population, const T* arrival, const Options& options,
                     const SortedArrivals<T>& sorted, const LinearForwardSpikes<T>& spikes,
                     const LinearGradients<T>& gradients) {
  using Fields = LinearFields<D>;
  constexpr Index kLevels = Fields::kThreshold + 1 - Fields::kResetMatrix;
  const Index neurons = population.neurons, parameters = gradients.parameters;
  std::fill_n(gradients.weight, population.rows * neurons, T(0));
  if (gradients.levels) std::fill_n(gradients.levels, kLevels * neurons, T(0));
  std::fill_n(gradients.flow, parameters * neurons, T(0));
  if (gradients.time) std::fill_n(gradients.time, population.batch * population.arrivals, T(0));
  if (population.batch == 0 || neurons == 0) return;
  const ArrivalIntervals<T> intervals(population, sorted);
  LinearPopulation<T, D> all(population, arrival, false);
  std::vector<Matrix<D>> a_by(neurons * parameters);
  for (Index neuron = 0; neuron < neurons; ++neuron)
    for (Index f = 0; f < parameters; ++f)
      for (int n = 0; n < D * D; ++n)
        a_by[neuron * parameters + f].m[n] = gradients.a_by[(f * D * D + n) * neurons + neuron];
  // With one matrix for all neurons its derivatives may still differ.
  for (Index n = parameters; n < neurons * parameters; ++n)
    all.uniform = all.uniform &&
                  std::memcmp(&a_by[n], &a_by[n % parameters], sizeof(a_by[n])) == 0;
  const LinearBackwardSteps<T, D> steps(all, a_by, parameters, intervals, population.batch,
                                        options.threads);
  constexpr int kVectors = kLinearVectors, kLanes = kVectors * kWidth<T>;
  const Index tiles = (neurons + kLanes - 1) / kLanes, size = (population.rows + 1) * kLanes;
  std::vector<LinearTile<T, D, kVectors>> all_tiles;
  for (Index tile = 0; tile < tiles; ++tile) all_tiles.emplace_back(all, tile * kLanes);
  // The number of partial gradients does not depend on the number of threads.
  const Index max_chunks = (kPartialGradients + tiles - 1) / tiles;
  const WorkUnits units{tiles,
                        std::max<Index>(1, std::min(max_chunks, (population.batch + 3) / 4)),
                        population.batch};
  const Index entries = population.batch * population.arrivals;
  const Index sums = ((gradients.levels ? kLevels : 0) + parameters) * kLanes;
  Array<T> tables(tiles * size), unit_tables(units.size() * size, T(0)),
      by_time(gradients.time ? tiles * entries : 0, T(0));
  Array<double> unit_sums(units.size() * sums, 0.0);
  ThreadPool::shared().run(
      tiles, ThreadPool::useful_threads(options.threads, tables.size()), [&](Index tile) {
        pack_weights(population, tile * kLanes, kLanes, tables.data() + tile * size);
      });
  const auto run_unit = [&](auto is_uniform, Index unit) {
    LinearTileBackward<T, D, kVectors, decltype(is_uniform)::value> backward(
        population, options, intervals, steps, sorted, spikes, a_by, parameters);
    const Index tile = units.tile(unit), chunk = units.chunk(unit);
    double* levels = gradients.levels ? unit_sums.data() + unit * sums : nullptr;
    double* flows = unit_sums.data() + unit * sums + (levels ? kLevels * kLanes : 0);
    for (Index sample = units.begin(chunk); sample < units.begin(chunk + 1); ++sample)
      backward.run(all_tiles[tile], tables.data() + tile * size, sample,
                   unit_tables.data() + unit * size,
                   gradients.time ? by_time.data() + tile * entries + sorted.first(sample)
                                  : nullptr,
                   levels, flows);
  };
  ThreadPool::shared().run(units.size(), options.threads, [&](Index unit) {
    all.uniform ? run_unit(std::true_type(), unit) : run_unit(std::false_type(), unit);
  });
  // ---- sums of the partial gradients
  for (Index neuron = 0; neuron < neurons; ++neuron) {
    const Index tile = neuron / kLanes, lane = neuron % kLanes;
    const auto total = [&](Index field) {
      double sum = 0;
      for (Index chunk = 0; chunk < units.chunks; ++chunk)
        sum += unit_sums[units.index(tile, chunk) * sums + field * kLanes + lane];
      return T(sum);
    };
    const Index first_flow = gradients.levels ? kLevels : 0;
    for (Index field = 0; field < first_flow; ++field)
      gradients.levels[field * neurons + neuron] = total(field);
    for (Index f = 0; f < parameters; ++f)
      gradients.flow[f * neurons + neuron] = total(first_flow + f);
  }
  const Index bands = std::min<Index>(population.rows, 16);
  ThreadPool::shared().run(
      bands, ThreadPool::useful_threads(options.threads, unit_tables.size()), [&](Index band) {
        for (Index row = population.rows * band / bands;
             row < population.rows * (band + 1) / bands; ++row)
          for (Index unit = 0; unit < units.size(); ++unit) {
            const Index first = units.tile(unit) * kLanes;
            const T* unit_row = unit_tables.data() + unit * size + row * kLanes;
            T* sum = gradients.weight + row * neurons + first;
            for (Index lane = 0; lane < std::min<Index>(kLanes, neurons - first); ++lane)
              sum[lane] += unit_row[lane];
          }
      });
  if (gradients.time)
    for (Index sample = 0; sample < population.batch; ++sample)
      for (Index arrival = 0; arrival < intervals.used(sample); ++arrival) {
        const Index slot = sorted.slot[sorted.first(sample) + arrival];
        if (slot < 0 || slot >= population.arrivals) continue;
        for (Index tile = 0; tile < tiles; ++tile)
          gradients.time[sample * population.arrivals + slot] +=
              by_time[tile * entries + sorted.first(sample) + arrival];
      }
}

}  // namespace native
