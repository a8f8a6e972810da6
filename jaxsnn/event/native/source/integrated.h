// Neurons whose equations are not linear:
//
//     x' = f(x) between events,  x = a(x, w) at an arrival of weight w,
//     a spike where the excess e(x) rises to 0:  x = r(x).
//
// native/model_source.py translates these functions from a neuron model to C++, together with their
// products with Jacobians and with programs that compute Taylor coefficients (series.h). Their class
// is the parameter `Model` here:
//
//     kVariables, kConstants    sizes of x and of the constants c of a neuron
//     rate, excess, reset, arrive                 the functions of (c, x); arrive has w for c
//     rate_back, excess_back, reset_back, arrive_back
//                               products of a vector with the Jacobians by c and by x, added up
//     Series, BackSeries        Taylor coefficients of x(t) and e(t); and of costates
//
// A step is a Taylor series of x, whose order and length follow from its coefficients. Over a step
// the excess is a polynomial, and the search for its first root misses none (polynomial.h).

#pragma once

#include "polynomial.h"
#include "series.h"
#include "tiles.h"

namespace native {

/// Largest order of a series, and the size of its last terms relative to the largest.
constexpr int series_order(float) { return 14; }
constexpr int series_order(double) { return kMaxOrder; }
constexpr double log2_tolerance_of(float) { return -38; }
constexpr double log2_tolerance_of(double) { return -56; }
/// Steps between two events after which a neuron is given up: its equations are too stiff, or its
/// state grows without bounds.
constexpr int kMaxIntegrationSteps = 200000;
/// Largest difference between the derivative of a series and the rate at its end, relative to the
/// change of the state. A larger one means that the series does not describe the solution.
constexpr double kMaxDefect = 1e-7;

/// An event, or the end of a step, on a trajectory.
template <int D>
struct TrajectoryPoint {
  enum Kind { kStep, kArrival, kSpike } kind;
  Index number;     // of the interval of an arrival, or of a spike
  double duration;  // of a step
  bool immediate;   // a spike that follows from a reset, without a crossing
  double x[D];      // before an event, or at the end of a step
};

/// A step of several neurons, one in each lane: the series of their states, its length, and the first
/// roots of the excess. Lanes do not depend on each other, to the last digit.
template <class T, class Model>
class LaneSteps {
 public:
  static constexpr int D = Model::kVariables, W = kDoubleLanes;

  /// State, longest step, and unit of time of the series of each lane; 0: the longest step.
  alignas(64) double x[D][W] = {}, longest[W], unit[W];
  /// Length of the step: 0 or NaN if there is none. Step up to the first root of the excess, and
  /// whether there is one: NaN is a failure.
  alignas(64) double length[W], taken[W];
  unsigned fires = 0;

  LaneSteps() {
    std::fill_n(longest, W, 1.0);
    std::fill_n(unit, W, 1.0);
  }

  void set_constants(int lane, const double* constants) { series_.set_lane(lane, constants); }

  /// Advance the state of the lanes of a bit mask, to the end of the step or to the root.
  void advance(unsigned lanes) {
    Lanes unit_time = expand(lanes);
    const Lanes step = load<double>(length), u = step / unit_time;
    for (int k = 0; k <= last_; ++k) scaled_[k] = series_.excess[k];
    Lanes power = u, zero = {}, bound = maximum(scaled_[0], zero), sum = 0.0 * scaled_[0];
    for (int k = 1; k <= last_; ++k, power *= u) {
      scaled_[k] *= power;
      bound += maximum(scaled_[k], zero);
      sum += 0.0 * scaled_[k];
    }
    const unsigned searched = lanes & ~bits_of((scaled_[0] < zero) & (scaled_[0] + bound < zero));
    Lanes part = zero + 1.0;
    fires = 0;
    for (unsigned rest = searched; rest; rest &= rest - 1) {
      const int lane = __builtin_ctz(rest);
      const double root = sum[lane] == 0 ? first_root(lane) : std::nan("");
      if (root == -1) continue;
      part[lane] = root;
      fires |= 1u << lane;
    }
    const Lanes advanced = step * part;
    store<double>(taken, advanced);
    const LaneMask moves = mask_of(lanes);
    for (int n = 0; n < D; ++n)
      store<double>(x[n], moves ? series_at(series_.x[n], last_, advanced / unit_time)
                                : load<double>(x[n]));
    store<double>(unit, moves ? unit_time : load<double>(unit));
  }

 private:
  static constexpr int kOrder = series_order(T());
  static constexpr double kLog2Tolerance = log2_tolerance_of(T());

  /// Compute the series, in units of a time that is returned, and the length of the steps.
  Lanes expand(unsigned lanes) {
    const Lanes farthest = load<double>(longest), zero = {};
    Lanes unit_time = load<double>(unit);
    unit_time = unit_time == 0.0 ? farthest : unit_time;
    unsigned pending = lanes;
    Lanes steps = zero;
    for (int attempt = 0; attempt < 40 && pending; ++attempt) {
      const Lanes reach = minimum(compute_series(lanes, farthest, unit_time), farthest);
      const LaneMask overflows = !(reach > 0.0);  // the unit is far too large
      const LaneMask underflows = (order_ == double(kOrder)) & (reach > 1024.0 * unit_time);
      const LaneMask repeats = mask_of(pending) & (overflows | underflows);
      steps = mask_of(pending) & ~repeats ? reach : steps;
      pending = bits_of(repeats);
      unit_time = repeats ? (overflows ? unit_time * 0x1p-20 : reach) : unit_time;
    }
    for (int k = 0; k <= last_; ++k) {
      series_.measure(k);
      series_.excess[k] = order_ >= double(k) ? series_.excess[k] : zero;
    }
    const Lanes log2_unit = log2_reach(series_.excess, order_, last_, kLog2Tolerance);
    const LaneMask accurate = mask_of(lanes) & (steps > 0.0);
    for (int n = 0; n < 30; ++n) {
      const LaneMask wrong = accurate & ~is_accurate(steps, unit_time);
      if (!bits_of(wrong)) break;
      steps = wrong ? steps * 0.25 : steps;
    }
    const LaneMask limited =
        accurate & (log2_unit < 60.0) & (log2_unit < rough_log2(steps / unit_time) + 0.1);
    if (bits_of(limited))
      steps = limited ? minimum(steps, each_exp2(minimum(log2_unit, zero + 60.0)) * unit_time)
                      : steps;
    store<double>(length, steps);
    return unit_time;
  }

  /// Return the length of the step that the coefficients allow, NaN if they are not finite.
  Lanes compute_series(unsigned lanes, Lanes farthest, Lanes unit_time) {
    const double tolerance = std::exp2(kLog2Tolerance);
    const Lanes zero = {}, ratio = farthest / unit_time;
    Lanes largest[D], power = zero + 1.0, small_orders = zero;
    for (int n = 0; n < D; ++n) {
      series_.x[n][0] = load<double>(x[n]);
      largest[n] = magnitude(series_.x[n][0]);
    }
    LaneMask active = mask_of(lanes);
    order_ = zero + double(kOrder);
    for (last_ = 0; last_ < kOrder;) {
      series_.next(last_++, unit_time);
      power *= ratio;
      LaneMask is_small = power < 1e200;
      for (int n = 0; n < D; ++n) {
        const Lanes size = magnitude(series_.x[n][last_]) * power;
        is_small &= size <= tolerance * largest[n];
        largest[n] = size > largest[n] ? size : largest[n];
      }
      small_orders = is_small ? small_orders + 1.0 : zero;
      if (last_ < 4) continue;
      const LaneMask ends = active & (small_orders >= 2.0);
      order_ = ends ? zero + double(last_) : order_;
      active &= ~ends;
      if (!bits_of(active)) break;
    }
    Lanes log2_length = zero + 60.0, sum = zero;
    for (int n = 0; n < D; ++n)
      for (int k = 5; k <= last_; ++k)
        series_.x[n][k] = order_ >= double(k) ? series_.x[n][k] : zero;
    if (!bits_of(active)) return farthest;
    for (int n = 0; n < D; ++n) {
      sum += 0.0 * series_.x[n][last_];
      log2_length =
          minimum(log2_length, log2_reach(series_.x[n], order_, last_, kLog2Tolerance));
    }
    const Lanes reach = sum == 0.0 ? each_exp2(log2_length) * unit_time : zero;
    return active ? reach : farthest;
  }

  /// Return whether the series satisfies the equations after a time. They need not be analytic.
  LaneMask is_accurate(Lanes time, Lanes unit_time) {
    Lanes start[D], rate[D], slope[D];
    const Lanes u = time / unit_time;
    for (int n = 0; n < D; ++n) {
      start[n] = series_.x[n][0];
      rate[n] = series_.x[n][1];
      slope[n] = series_slope(series_.x[n], last_, u);
    }
    Lanes after[D];
    for (int n = 0; n < D; ++n) after[n] = series_at(series_.x[n], last_, u);
    for (int n = 0; n < D; ++n) series_.x[n][0] = after[n];
    series_.next(0, unit_time);
    LaneMask accurate = ~LaneMask{};
    for (int n = 0; n < D; ++n) {
      const Lanes size = magnitude(start[n]) + magnitude(rate[n]) * u +
                         magnitude(series_.x[n][2]) * u * u;
      accurate &= magnitude(slope[n] - series_.x[n][1]) * u <= kMaxDefect * size;
      series_.x[n][0] = start[n];
      series_.x[n][1] = rate[n];
    }
    return accurate;
  }

  /// Return the first root of the excess of a lane in a step, as a fraction of it; -1 if there is
  /// none.
  double first_root(int lane) const {
    double coefficients[kSeriesTerms];
    for (int k = 0; k <= last_; ++k) coefficients[k] = scaled_[k][lane];
    // Rounding may have left the state of a neuron that does not fire just above the threshold.
    if (coefficients[0] >= 0) coefficients[0] = -std::numeric_limits<double>::min();
    return Polynomial(coefficients, int(order_[lane])).first_root();
  }

  typename Model::Series series_;
  Lanes scaled_[kSeriesTerms];
  Lanes order_;
  int last_ = 0;  // largest order
};

/// What a trajectory starts from, and what comes in.
template <class T>
struct TrajectoryInput {
  const double* constants;
  const double* start;
  const T* weights;  // of the neuron, `stride` apart
  Index stride, row_count;
  typename ArrivalIntervals<T>::Edges edges;
  typename ArrivalIntervals<T>::Rows rows;
  Index used;
};

/// Solution of the equations of many neurons and samples, several at a time. Each lane goes from
/// event to event on its own, and takes the next trajectory when it is done.
///
/// `Client` has these methods, each with the number of a lane:
///
///     bool next(int lane, TrajectoryInput<T>& input)     begin another one; false if there is none
///     bool on_point(int lane, const Point&, double edge, double elapsed, double next_edge)
///                                 at each event, and at the end of each step if kWithSteps; false
///                                 ends the trajectory
///     void on_failure(int lane)   the equations cannot be integrated
template <class T, class Model, bool kWithSteps, class Client>
class Trajectories {
 public:
  static constexpr int D = Model::kVariables, W = kDoubleLanes;
  using Point = TrajectoryPoint<D>;

  explicit Trajectories(Client& client) : client_(client) {}

  void run() {
    bool may_begin[W];
    std::fill_n(may_begin, W, true);
    for (;;) {
      unsigned lanes = 0;
      for (int lane = 0; lane < W; ++lane) {
        while (may_begin[lane] && !prepare(lane))
          may_begin[lane] = begin(lane);
        lanes |= unsigned(may_begin[lane]) << lane;
      }
      if (!lanes) return;
      steps_.advance(lanes);
      for (unsigned rest = lanes; rest; rest &= rest - 1) complete(__builtin_ctz(rest));
    }
  }

 private:
  struct Lane {
    TrajectoryInput<T> input;
    Index interval, spikes;
    double edge, next_edge, duration, elapsed;
    double first_unit;  // unit of time of the series after the last reset
    int steps;
    bool active = false;
    bool may_fire_at_once;  // at time 0, and after a reset
  };

  bool begin(int index) {
    Lane& lane = lanes_[index];
    if (!client_.next(index, lane.input)) return false;
    steps_.set_constants(index, lane.input.constants);
    for (int n = 0; n < D; ++n) steps_.x[n][index] = lane.input.start[n];
    steps_.unit[index] = lane.first_unit = 0;
    lane.spikes = 0;
    lane.may_fire_at_once = lane.active = true;
    begin_interval(lane, 0);
    return true;
  }

  static void begin_interval(Lane& lane, Index interval) {
    lane.edge = interval ? lane.next_edge : lane.input.edges[0];
    lane.next_edge = lane.input.edges[interval + 1];
    lane.interval = interval;
    lane.duration = std::max(lane.next_edge - lane.edge, 0.0);
    lane.elapsed = 0;
    lane.steps = 0;
  }

  bool on_point(int index, typename Point::Kind kind, Index number, double duration,
                bool immediate = false) {
    Point point{kind, number, duration, immediate, {}};
    for (int n = 0; n < D; ++n) point.x[n] = steps_.x[n][index];
    Lane& lane = lanes_[index];
    if (!client_.on_point(index, point, lane.edge, lane.elapsed, lane.next_edge))
      lane.active = false;
    return lane.active;
  }

  void fail(int index) {
    client_.on_failure(index);
    lanes_[index].active = false;
  }

  /// Go on through the events at the present time. Return whether there is a step to make; false if
  /// the trajectory is over.
  bool prepare(int index) {
    Lane& lane = lanes_[index];
    while (lane.active) {
      double state[D], sum = 0;
      for (int n = 0; n < D; ++n) sum += 0 * (state[n] = steps_.x[n][index]);
      if (sum != 0) {
        fail(index);
      } else if (lane.may_fire_at_once) {
        double excess;
        Model::excess(lane.input.constants, state, &excess);
        lane.may_fire_at_once = excess >= 0;
        if (std::isnan(excess)) fail(index);
        else if (excess >= 0 && on_point(index, Point::kSpike, lane.spikes++, 0, true))
          reset(index);
      } else if (lane.duration - lane.elapsed > 0) {
        if (++lane.steps <= kMaxIntegrationSteps) {
          steps_.longest[index] = lane.duration - lane.elapsed;
          return true;
        }
        fail(index);
      } else if (lane.interval == lane.input.used) {
        lane.active = false;
      } else {
        begin_interval(lane, lane.interval + 1);
        if (!on_point(index, Point::kArrival, lane.interval, 0)) return false;
        const Index row = lane.input.rows[lane.interval];
        const double weight =
            row < lane.input.row_count ? double(lane.input.weights[row * lane.input.stride]) : 0.0;
        double after[D];
        Model::arrive(&weight, state, after);
        for (int n = 0; n < D; ++n) steps_.x[n][index] = after[n];
      }
    }
    return false;
  }

  /// Take over a step.
  void complete(int index) {
    Lane& lane = lanes_[index];
    const double length = steps_.length[index], taken = steps_.taken[index];
    const bool fires = steps_.fires >> index & 1;
    if (!(length > 0) || std::isnan(taken)) return fail(index);
    lane.elapsed =
        !fires && length == steps_.longest[index] ? lane.duration : lane.elapsed + taken;
    if (kWithSteps && !on_point(index, Point::kStep, 0, taken)) return;
    if (!fires) {
      steps_.unit[index] = length;
      if (lane.first_unit == 0) lane.first_unit = length;
      return;
    }
    lane.steps = 0;
    if (on_point(index, Point::kSpike, lane.spikes++, 0)) reset(index);
  }

  void reset(int index) {
    Lane& lane = lanes_[index];
    double state[D], after[D];
    for (int n = 0; n < D; ++n) state[n] = steps_.x[n][index];
    Model::reset(lane.input.constants, state, after);
    for (int n = 0; n < D; ++n) steps_.x[n][index] = after[n];
    lane.may_fire_at_once = true;
    steps_.unit[index] = lane.first_unit;
  }

  Client& client_;
  LaneSteps<T, Model> steps_;
  Lane lanes_[W];
};

/// Results of the forward pass; arrays (batch, neurons, max_spikes), `count` (batch, neurons).
template <class T>
struct IntegratedSpikes {
  T* time;
  T* slope;
  std::int32_t* count;
};

/// Constants and initial state of each neuron in double precision: the first fields of the array
/// `parameters`, which is (kConstants + kVariables + 1, neurons). The last field is the smallest
/// slope that gradients are divided by.
template <class T, class Model>
class IntegratedNeurons {
 public:
  static constexpr Index kStart = Model::kConstants, kFloor = kStart + Model::kVariables,
                         kFields = kFloor + 1;

  explicit IntegratedNeurons(const Population<T>& population)
      : values_(population.neurons * kFields) {
    for (Index neuron = 0; neuron < population.neurons; ++neuron)
      for (Index field = 0; field < kFields; ++field)
        values_[neuron * kFields + field] =
            population.parameters[field * population.neurons + neuron];
  }

  const double* constants(Index neuron) const { return values_.data() + neuron * kFields; }
  const double* start(Index neuron) const { return constants(neuron) + kStart; }
  double slope_floor(Index neuron) const { return constants(neuron)[kFloor]; }

 private:
  Array<double> values_;
};

template <class T, class Model>
TrajectoryInput<T> trajectory_input(const Population<T>& population,
                                    const ArrivalIntervals<T>& intervals,
                                    const IntegratedNeurons<T, Model>& neurons, Index sample,
                                    Index neuron) {
  return {neurons.constants(neuron),
          neurons.start(neuron),
          population.weight + neuron,
          population.neurons,
          population.rows,
          intervals.edges(sample),
          intervals.rows(sample),
          intervals.used(sample)};
}

/// Neurons of a tile, whose gradients are summed together.
constexpr Index kIntegratedLanes = 8;

/// Writes the spikes of consecutive trajectories, numbered (batch, neurons).
template <class T, class Model>
class SpikeWriter {
 public:
  static constexpr int D = Model::kVariables;
  using Point = TrajectoryPoint<D>;

  SpikeWriter(const Population<T>& population, const Options& options,
              const ArrivalIntervals<T>& intervals, const IntegratedNeurons<T, Model>& neurons,
              const IntegratedSpikes<T>& spikes, Index begin, Index end)
      : population_(population),
        options_(options),
        intervals_(intervals),
        neurons_(neurons),
        spikes_(spikes),
        next_(begin),
        end_(end) {}

  bool next(int lane, TrajectoryInput<T>& input) {
    if (next_ == end_) return false;
    const Index number = result_[lane] = next_++, slots = options_.max_spikes;
    input = trajectory_input(population_, intervals_, neurons_, number / population_.neurons,
                             number % population_.neurons);
    constants_[lane] = input.constants;
    std::fill_n(spikes_.time + number * slots, slots, std::numeric_limits<T>::infinity());
    std::fill_n(spikes_.slope + number * slots, slots, T(1));
    spikes_.count[number] = 0;
    return true;
  }

  bool on_point(int lane, const Point& point, double edge, double elapsed, double next_edge) {
    if (point.kind != Point::kSpike) return true;
    const Index slots = options_.max_spikes;
    std::int32_t& count = spikes_.count[result_[lane]];
    if (count < slots) {
      double rate[D], gradient[D] = {}, slope = 0;
      const double one = 1;
      Model::rate(constants_[lane], point.x, rate);
      Model::excess_back(constants_[lane], point.x, &one, nullptr, gradient);
      for (int n = 0; n < D; ++n) slope += gradient[n] * rate[n];
      const double time = std::min(edge + elapsed, next_edge);
      const Index slot = result_[lane] * slots + count;
      spikes_.time[slot] = after_arrival<T>(edge, elapsed, time);
      spikes_.slope[slot] = T(slope);
    }
    ++count;
    return !options_.once && count < options_.max_counted;
  }

  void on_failure(int lane) {
    std::fill_n(spikes_.time + result_[lane] * options_.max_spikes, options_.max_spikes,
                std::numeric_limits<T>::quiet_NaN());
  }

 private:
  const Population<T>& population_;
  const Options& options_;
  const ArrivalIntervals<T>& intervals_;
  const IntegratedNeurons<T, Model>& neurons_;
  const IntegratedSpikes<T>& spikes_;
  Index next_, end_;
  Index result_[kDoubleLanes];
  const double* constants_[kDoubleLanes];
};

/// Simulate a population and write its spikes.
template <class T, class Model>
void integrated_forward(const Population<T>& population, const Options& options,
                        const SortedArrivals<T>& sorted, const IntegratedSpikes<T>& spikes) {
  const Index trajectories = population.batch * population.neurons;
  if (trajectories == 0) return;
  const ArrivalIntervals<T> intervals(population, sorted);
  const IntegratedNeurons<T, Model> neurons(population);
  // Enough trajectories to fill all lanes nearly to the end, in enough units for the threads.
  const Index size = std::clamp<Index>(trajectories / 16, 2 * kDoubleLanes, 16 * kDoubleLanes);
  ThreadPool::shared().run((trajectories + size - 1) / size, options.threads, [&](Index unit) {
    SpikeWriter<T, Model> writer(population, options, intervals, neurons, spikes, unit * size,
                                 std::min((unit + 1) * size, trajectories));
    Trajectories<T, Model, false, SpikeWriter<T, Model>>(writer).run();
  });
}

/// Gradients; null for those that are not needed.
template <class T>
struct IntegratedGradients {
  T* weight;      // (rows, neurons)
  T* parameters;  // (kConstants + kVariables, neurons)
  T* time;        // (batch, arrivals), by slot
};

/// Backward pass of a trajectory: where it starts, and what its gradients are added to.
template <class T>
struct CostateTask {
  TrajectoryInput<T> input;
  double slope_floor;  // see `IntegratedNeurons`
  const T* cotangent;  // dL/dt of each of `count` spikes
  Index count;
  double* by_weight;     // kIntegratedLanes apart, one for each row
  double* by_time;       // one for each arrival, or null
  double* by_constants;  // of the neuron
  double* by_start;
};

/// Backward pass of trajectories, several at a time: the costate p = dL/dx goes back in time by
/// p' = -(df/dx)^T p, and the gradient with respect to the constants is the integral of (df/dc)^T p.
/// At an arrival p- = (da/dx)^T p+. At a spike, with the gradient g of the excess, the slope s = g . f,
/// and the cotangent E = dL/dt of the spike:
///
///     p- = (dr/dx)^T p+ + mu g,   mu = -(E + p+ . ((dr/dx) f(x-) - f(x+))) / s.
///
/// The trajectories are simulated again and recorded. Each step is then integrated backwards from the
/// state at its end, so that errors of x do not grow.
template <class T, class Model, bool kWithConstants>
class IntegratedBackward {
  static constexpr int D = Model::kVariables, W = kDoubleLanes;
  using Point = TrajectoryPoint<D>;
  static constexpr int kOrder = series_order(T());
  static constexpr double kLog2Tolerance = log2_tolerance_of(T());
  /// Trajectories that are recorded before they are integrated backwards.
  static constexpr Index kRecorded = 4 * W;

 public:
  /// Called by `Trajectories`.
  bool next(int lane, TrajectoryInput<T>& input) {
    if (next_ == end_) return false;
    const Index number = recorded_[lane] = next_++;
    input = tasks_[number].input;
    points_[number - begin_].clear();
    return true;
  }

  bool on_point(int lane, const Point& point, double, double, double) {
    points_[recorded_[lane] - begin_].push_back(point);
    return !(point.kind == Point::kSpike &&
             point.number == tasks_[recorded_[lane]].count - 1);
  }

  void on_failure(int) {}

  /// Add to the gradients of some tasks with at least one spike.
  void run(const std::vector<CostateTask<T>>& tasks) {
    tasks_ = tasks.data();
    for (begin_ = 0; begin_ < Index(tasks.size()); begin_ = end_) {
      next_ = begin_;
      end_ = std::min<Index>(begin_ + kRecorded, Index(tasks.size()));
      Trajectories<T, Model, true, IntegratedBackward>(*this).run();
      next_ = begin_;
      for (int lane = 0; lane < W; ++lane) lanes_[lane].task = nullptr;
      for (;;) {
        unsigned active = 0;
        for (int lane = 0; lane < W; ++lane) active |= unsigned(prepare(lane)) << lane;
        if (!active) break;
        propagate_step(active);
      }
    }
  }

 private:
  struct Lane {
    const CostateTask<T>* task = nullptr;
    const std::vector<Point>* points;
    Index rest;    // points that are still to come
    double drive;  // of spikes that follow at once
    int steps;
  };

  /// Go back through events up to the next step. Return whether there is one.
  bool prepare(int index) {
    Lane& lane = lanes_[index];
    for (;;) {
      if (!lane.task) {
        if (next_ == end_) return false;
        lane.task = tasks_ + next_;
        lane.points = &points_[next_ - begin_];
        ++next_;
        lane.rest = Index(lane.points->size());
        lane.drive = remaining_[index] = 0;
        for (int n = 0; n < D; ++n) p_[n][index] = 0;
        series_.set_lane(index, lane.task->input.constants);
      }
      if (remaining_[index] > 0) return true;
      double p[D];
      for (int n = 0; n < D; ++n) p[n] = p_[n][index];
      if (lane.rest == 0) {
        for (int n = 0; n < D; ++n) lane.task->by_start[n] += p[n];
        lane.task = nullptr;
        continue;
      }
      const Point& point = (*lane.points)[--lane.rest];
      if (point.kind == Point::kStep) {
        remaining_[index] = point.duration;
        lane.steps = 0;
        for (int n = 0; n < D; ++n) x_[n][index] = point.x[n];
        continue;
      }
      if (point.kind == Point::kSpike)
        propagate_spike(lane, point, p);
      else
        propagate_arrival(*lane.task, point, p);
      for (int n = 0; n < D; ++n) p_[n][index] = p[n];
    }
  }

  static void propagate_arrival(const CostateTask<T>& task, const Point& point, double* p) {
    const TrajectoryInput<T>& input = task.input;
    const Index row = input.rows[point.number];
    const double weight = row < input.row_count ? double(input.weights[row * input.stride]) : 0.0;
    double before[D] = {}, of_weight = 0;
    Model::arrive_back(&weight, point.x, p, &of_weight, before);
    if (task.by_time) {
      double after[D], rate_before[D], rate_after[D], change = 0;
      Model::arrive(&weight, point.x, after);
      Model::rate(input.constants, point.x, rate_before);
      Model::rate(input.constants, after, rate_after);
      for (int k = 0; k < D; ++k) change += before[k] * rate_before[k] - p[k] * rate_after[k];
      task.by_time[point.number - 1] += change;
    }
    if (row < input.row_count) task.by_weight[row * kIntegratedLanes] += of_weight;
    std::copy_n(before, D, p);
  }

  /// Sets the part of the drive that belongs to the previous spike, if this one follows at once.
  static void propagate_spike(Lane& lane, const Point& point, double* p) {
    const CostateTask<T>& task = *lane.task;
    const double* constants = task.input.constants;
    double after[D], rate_before[D], rate_after[D], gradient[D] = {}, before[D] = {};
    Model::reset(constants, point.x, after);
    Model::rate(constants, point.x, rate_before);
    Model::rate(constants, after, rate_after);
    double* const by_constants = kWithConstants ? task.by_constants : nullptr;
    Model::reset_back(constants, point.x, p, by_constants, before);
    double drive = task.cotangent[point.number] + lane.drive, slope = 0;
    for (int n = 0; n < D; ++n) drive += before[n] * rate_before[n] - p[n] * rate_after[n];
    std::copy_n(before, D, p);
    lane.drive = point.immediate ? drive : 0;
    if (point.immediate) return;
    const double one = 1;
    Model::excess_back(constants, point.x, &one, nullptr, gradient);
    for (int n = 0; n < D; ++n) slope += gradient[n] * rate_before[n];
    const double mu = -drive / std::max(slope, task.slope_floor);
    for (int n = 0; n < D; ++n) p[n] += mu * gradient[n];
    if (by_constants) {
      double ignored[D] = {};
      Model::excess_back(constants, point.x, &mu, by_constants, ignored);
    }
  }

  /// Go back by the remaining time of each lane, or by as much as the series allow.
  void propagate_step(unsigned active) {
    const LaneMask moves = mask_of(active);
    const Lanes zero = {}, one = zero + 1.0;
    const Lanes unit = moves ? load<double>(remaining_) : one;
    for (int n = 0; n < D; ++n) {
      series_.x[n][0] = load<double>(x_[n]);
      series_.p[n][0] = load<double>(p_[n]);
    }
    LaneMask limited = moves;
    const int order = compute_series(unit, limited);
    Lanes u = one;
    if (bits_of(limited)) {
      Lanes log2_length = zero;
      for (int n = 0; n < D; ++n)
        for (const Lanes* series : {series_.x[n], series_.p[n]})
          log2_length = minimum(
              log2_length, log2_reach(series, zero + double(order), order, kLog2Tolerance + 4));
      u = limited & (log2_length < 0.0) ? each_exp2(log2_length) : one;
    }
    for (int n = 0; n < D; ++n) {
      store<double>(x_[n], series_at(series_.x[n], order, u));
      store<double>(p_[n], series_at(series_.p[n], order, u));
    }
    if constexpr (kWithConstants)
      for (int f = 0; f < Model::kConstants; ++f) {
        Lanes integral = zero;
        for (int k = order - 1; k >= 0; --k)
          integral = integral * u + series_.by_constant[f][k] * (1.0 / (k + 1));
        integral *= u * unit;
        for (unsigned rest = active; rest; rest &= rest - 1) {
          const int lane = __builtin_ctz(rest);
          lanes_[lane].task->by_constants[f] += integral[lane];
        }
      }
    for (unsigned rest = active; rest; rest &= rest - 1) {
      const int lane = __builtin_ctz(rest);
      remaining_[lane] = u[lane] < 1 ? remaining_[lane] - u[lane] * unit[lane] : 0;
      if (!(u[lane] > 0) || ++lanes_[lane].steps > kMaxIntegrationSteps) {
        for (int n = 0; n < D; ++n) p_[n][lane] = std::nan("");
        remaining_[lane] = 0;
      }
    }
  }

  /// Compute the series in units of a time, and return their order: kOrder, or a smaller one of which
  /// the terms are small at that time. limited: lanes that are looked at; becomes those in which the
  /// terms are not small.
  int compute_series(Lanes unit, LaneMask& limited) {
    const double tolerance = std::exp2(kLog2Tolerance);
    Lanes largest_x[D], largest_p[D], small_orders = {};
    const Lanes zero = {}, limit = zero + 1e200;
    for (int n = 0; n < D; ++n) {
      largest_x[n] = magnitude(series_.x[n][0]);
      largest_p[n] = magnitude(series_.p[n][0]);
    }
    for (int order = 0; order < kOrder;) {
      series_.template next<kWithConstants>(order++, unit);
      LaneMask is_small = ~LaneMask{};
      for (int n = 0; n < D; ++n) {
        const Lanes x = magnitude(series_.x[n][order]), p = magnitude(series_.p[n][order]);
        is_small &= (x <= tolerance * largest_x[n]) & (p <= tolerance * largest_p[n]);
        largest_x[n] = maximum(largest_x[n], minimum(x, limit));
        largest_p[n] = maximum(largest_p[n], minimum(p, limit));
      }
      small_orders = is_small ? small_orders + 1.0 : zero;
      if (order < 4) continue;
      limited &= small_orders < 2.0;
      if (!bits_of(limited)) return order;
    }
    return kOrder;
  }

  typename Model::BackSeries series_;
  alignas(64) double x_[D][W] = {}, p_[D][W] = {}, remaining_[W] = {};
  Lane lanes_[W];
  Index recorded_[W];
  const CostateTask<T>* tasks_;
  Index begin_, next_, end_;  // of the tasks
  std::vector<Point> points_[kRecorded];
};

/// Compute the gradients. spike_time, cotangent: (batch, neurons, max_spikes).
template <class T, class Model>
void integrated_backward(const Population<T>& population, const Options& options,
                         const SortedArrivals<T>& sorted, const T* spike_time, const T* cotangent,
                         const IntegratedGradients<T>& gradients) {
  constexpr Index D = Model::kVariables, kConstants = Model::kConstants, kSums = kConstants + D;
  const Index neurons = population.neurons, rows = population.rows, slots = options.max_spikes;
  std::fill_n(gradients.weight, rows * neurons, T(0));
  if (gradients.parameters) std::fill_n(gradients.parameters, kSums * neurons, T(0));
  if (gradients.time) std::fill_n(gradients.time, population.batch * population.arrivals, T(0));
  if (population.batch == 0 || neurons == 0) return;
  const ArrivalIntervals<T> intervals(population, sorted);
  const IntegratedNeurons<T, Model> all(population);
  constexpr Index kLanes = kIntegratedLanes;
  const Index tiles = (neurons + kLanes - 1) / kLanes;
  // The number of partial gradients does not depend on the number of threads.
  const Index max_chunks = (kPartialGradients + tiles - 1) / tiles;
  const WorkUnits units{
      tiles, std::max<Index>(1, std::min(max_chunks, population.batch)), population.batch};
  const Index entries = population.batch * population.arrivals, size = rows * kLanes;
  Array<double> tables(units.size() * size, 0.0), sums(units.size() * kSums * kLanes, 0.0),
      by_time(gradients.time ? tiles * entries : 0, 0.0);
  const auto run_unit = [&](auto with_constants, Index unit) {
    const Index tile = units.tile(unit), chunk = units.chunk(unit);
    const Index lanes = std::min(kLanes, neurons - tile * kLanes);
    std::vector<CostateTask<T>> tasks;
    for (Index sample = units.begin(chunk); sample < units.begin(chunk + 1); ++sample)
      for (Index lane = 0; lane < lanes; ++lane) {
        const Index neuron = tile * kLanes + lane, first = (sample * neurons + neuron) * slots;
        Index count = 0;
        while (count < slots && spike_time[first + count] < std::numeric_limits<T>::infinity())
          ++count;
        while (count > 0 && cotangent[first + count - 1] == 0) --count;
        if (count == 0) continue;
        double* const sum = sums.data() + (unit * kLanes + lane) * kSums;
        tasks.push_back({trajectory_input(population, intervals, all, sample, neuron),
                         all.slope_floor(neuron), cotangent + first, count,
                         tables.data() + unit * size + lane,
                         gradients.time
                             ? by_time.data() + tile * entries + sorted.first(sample)
                             : nullptr,
                         sum, sum + kConstants});
      }
    const auto backward =
        std::make_unique<IntegratedBackward<T, Model, decltype(with_constants)::value>>();
    backward->run(tasks);
  };
  ThreadPool::shared().run(units.size(), options.threads, [&](Index unit) {
    gradients.parameters ? run_unit(std::true_type(), unit) : run_unit(std::false_type(), unit);
  });
  for (Index neuron = 0; neuron < neurons; ++neuron) {
    const Index tile = neuron / kLanes, lane = neuron % kLanes;
    const auto total = [&](auto&& part) {
      double sum = 0;
      for (Index chunk = 0; chunk < units.chunks; ++chunk) sum += part(units.index(tile, chunk));
      return T(sum);
    };
    for (Index row = 0; row < rows; ++row)
      gradients.weight[row * neurons + neuron] =
          total([&](Index unit) { return tables[unit * size + row * kLanes + lane]; });
    for (Index field = 0; gradients.parameters && field < kSums; ++field)
      gradients.parameters[field * neurons + neuron] =
          total([&](Index unit) { return sums[(unit * kLanes + lane) * kSums + field]; });
  }
  if (!gradients.time) return;
  for (Index sample = 0; sample < population.batch; ++sample)
    for (Index arrival = 0; arrival < intervals.used(sample); ++arrival) {
      const Index slot = sorted.slot[sorted.first(sample) + arrival];
      if (slot < 0 || slot >= population.arrivals) continue;
      double sum = 0;
      for (Index tile = 0; tile < tiles; ++tile)
        sum += by_time[tile * entries + sorted.first(sample) + arrival];
      gradients.time[sample * population.arrivals + slot] += T(sum);
    }
}

}  // namespace native
