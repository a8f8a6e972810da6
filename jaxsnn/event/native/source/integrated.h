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

/// Solution of the equations of one neuron.
template <class T, class Model>
class Trajectory {
 public:
  static constexpr int D = Model::kVariables;
  using Point = TrajectoryPoint<D>;

  explicit Trajectory(const double* constants) : constants_(constants), series_(constants) {}

  /// Simulate a neuron through all intervals of a sample.
  ///
  /// start: initial state. weights: those of the neuron, `stride` apart. rows: see
  /// `ArrivalIntervals`. on_point: called at the end of each step and at each event; false ends the
  /// simulation. Return false if the equations cannot be integrated.
  template <class Edges, class Rows, class OnPoint>
  bool run(const double* start, const T* weights, Index stride, Index row_count, const Edges& edges,
           const Rows& rows, Index used, OnPoint&& on_point) {
    std::copy_n(start, D, x_);
    may_fire_at_once_ = true;
    spikes_ = 0;
    unit_ = first_unit_ = 0;
    for (Index interval = 0; interval <= used; ++interval) {
      if (interval > 0) {
        const Index row = rows[interval];
        const double weight = row < row_count ? double(weights[row * stride]) : 0.0;
        if (!on_point(point(Point::kArrival, interval, 0), 0.0)) return true;
        double after[D];
        Model::arrive(&weight, x_, after);
        std::copy_n(after, D, x_);
      }
      const Outcome outcome =
          advance(std::max(edges[interval + 1] - edges[interval], 0.0), on_point);
      if (outcome != kContinue) return outcome == kEnd;
    }
    return true;
  }

 private:
  enum Outcome { kContinue, kEnd, kFailure };

  Point point(typename Point::Kind kind, Index number, double duration, bool immediate = false) {
    Point point{kind, number, duration, immediate, {}};
    std::copy_n(x_, D, point.x);
    return point;
  }

  /// Advance to the end of an interval, through all spikes.
  template <class OnPoint>
  Outcome advance(double duration, OnPoint& on_point) {
    double elapsed = 0;
    for (int steps = 0;;) {
      if (!is_finite()) return kFailure;
      const double remaining = duration - elapsed;
      if (may_fire_at_once_) {
        double excess;
        Model::excess(constants_, x_, &excess);
        if (std::isnan(excess)) return kFailure;
        if (excess >= 0) {
          if (!on_point(point(Point::kSpike, spikes_++, 0, true), elapsed)) return kEnd;
          reset();
          continue;
        }
        may_fire_at_once_ = false;
      }
      if (!(remaining > 0)) return kContinue;
      if (++steps > kMaxIntegrationSteps) return kFailure;
      const double length = expand(remaining);
      if (!(length > 0)) return kFailure;
      double scaled[kSeriesTerms];
      const double root = first_root(length / unit_, scaled);
      if (std::isnan(root)) return kFailure;
      const bool fires = root >= 0;
      const double taken = fires ? root * length : length;
      for (int n = 0; n < D; ++n) x_[n] = series_at(series_.x[n], order_, taken / unit_);
      elapsed = !fires && length == remaining ? duration : elapsed + taken;
      if (!on_point(point(Point::kStep, 0, taken), elapsed)) return kEnd;
      if (!fires) {
        unit_ = length;
        if (first_unit_ == 0) first_unit_ = length;
        continue;
      }
      steps = 0;
      if (!on_point(point(Point::kSpike, spikes_++, 0), elapsed)) return kEnd;
      reset();
    }
  }

  void reset() {
    double after[D];
    Model::reset(constants_, x_, after);
    std::copy_n(after, D, x_);
    may_fire_at_once_ = true;
    unit_ = first_unit_;
  }

  bool is_finite() const {
    double sum = 0;
    for (int n = 0; n < D; ++n) sum += 0 * x_[n];
    return sum == 0;
  }

  /// Compute the series at the current state, in units of the time `unit_`, and return the length of
  /// the step, up to `longest`; 0 if there is none.
  double expand(double longest) {
    if (unit_ == 0) unit_ = longest;
    for (int attempt = 0; attempt < 40; ++attempt) {
      const double reach = std::min(compute_series(longest), longest);
      if (!(reach > 0)) {  // the coefficients overflow: the unit is far too large
        unit_ *= 0x1p-20;
        continue;
      }
      if (order_ == kOrder && reach > 1024 * unit_) {  // they may underflow
        unit_ = reach;
        continue;
      }
      double length = reach;
      for (int n = 0; n < 30 && !is_accurate(length); ++n) length /= 4;
      for (int k = 0; k <= order_; ++k) series_.measure(k);
      const double log2_unit = log2_reach(series_.excess, order_, kLog2Tolerance);
      return log2_unit < 60 ? std::min(length, std::exp2(log2_unit) * unit_) : length;
    }
    return 0;
  }

  /// Return the length of the step that the last coefficients allow, NaN if they are not finite.
  double compute_series(double longest) {
    const double tolerance = std::exp2(kLog2Tolerance), ratio = longest / unit_;
    double largest[D], power = 1;
    for (int n = 0; n < D; ++n) {
      series_.x[n][0] = x_[n];
      largest[n] = std::abs(x_[n]);
    }
    int small_orders = 0;
    for (order_ = 0; order_ < kOrder;) {
      series_.next(order_++, unit_);
      power *= ratio;
      bool is_small = power < 1e200;
      for (int n = 0; n < D; ++n) {
        const double size = std::abs(series_.x[n][order_]) * power;
        is_small = is_small && size <= tolerance * largest[n];
        largest[n] = std::max(largest[n], size);
      }
      small_orders = is_small ? small_orders + 1 : 0;
      if (small_orders == 2 && order_ >= 4) return longest;
    }
    double log2_length = 60, sum = 0;
    for (int n = 0; n < D; ++n) {
      sum += 0 * series_.x[n][order_];
      log2_length = std::min(log2_length, log2_reach(series_.x[n], order_, kLog2Tolerance));
    }
    return sum == 0 ? std::exp2(log2_length) * unit_ : std::nan("");
  }

  /// Return whether the series satisfies the equations after a time. They need not be analytic.
  bool is_accurate(double length) const {
    double after[D], rate[D];
    const double u = length / unit_;
    for (int n = 0; n < D; ++n) after[n] = series_at(series_.x[n], order_, u);
    Model::rate(constants_, after, rate);
    for (int n = 0; n < D; ++n) {
      const double slope = series_slope(series_.x[n], order_, u) / unit_;
      const double size = std::abs(x_[n]) + std::abs(series_.x[n][1]) * u +
                          std::abs(series_.x[n][2]) * u * u;
      if (!(std::abs(slope - rate[n]) * length <= kMaxDefect * size)) return false;
    }
    return true;
  }

  /// Return the first root of the excess in a step, as a fraction of it; -1 if there is none.
  /// scaled: becomes the coefficients of the excess in units of the step.
  double first_root(double u, double (&scaled)[kSeriesTerms]) const {
    double power = 1, bound = 0, sum = 0;
    for (int k = 0; k <= order_; ++k, power *= u) {
      scaled[k] = series_.excess[k] * power;
      bound += std::max(scaled[k], 0.0);
      sum += 0 * scaled[k];
    }
    if (sum != 0) return std::nan("");
    // Rounding may have left the state of a neuron that does not fire just above the threshold.
    if (scaled[0] >= 0) scaled[0] = -std::numeric_limits<double>::min();
    else if (scaled[0] + bound < 0) return -1;
    return Polynomial(scaled, order_).first_root();
  }

  static constexpr int kOrder = series_order(T());
  static constexpr double kLog2Tolerance = log2_tolerance_of(T());

  const double* constants_;
  typename Model::Series series_;
  int order_ = 0;
  double unit_ = 0, first_unit_ = 0;  // unit of time of the series, now and after the last reset
  double x_[D];
  Index spikes_ = 0;
  bool may_fire_at_once_ = true;  // at time 0, and after a reset
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

/// Neurons of a tile, whose gradients are summed together.
constexpr Index kIntegratedLanes = 8;

/// Simulate a population and write its spikes.
template <class T, class Model>
void integrated_forward(const Population<T>& population, const Options& options,
                        const SortedArrivals<T>& sorted, const IntegratedSpikes<T>& spikes) {
  constexpr int D = Model::kVariables;
  using Point = TrajectoryPoint<D>;
  if (population.batch == 0 || population.neurons == 0) return;
  const ArrivalIntervals<T> intervals(population, sorted);
  const IntegratedNeurons<T, Model> neurons(population);
  const Index slots = options.max_spikes;
  const auto simulate = [&](Index sample, Index neuron) {
    const Index result = sample * population.neurons + neuron;
    T* times = spikes.time + result * slots;
    T* slopes = spikes.slope + result * slots;
    std::int32_t& count = spikes.count[result];
    std::fill_n(times, slots, std::numeric_limits<T>::infinity());
    std::fill_n(slopes, slots, T(1));
    count = 0;
    const auto edges = intervals.edges(sample);
    const double* constants = neurons.constants(neuron);
    Index interval = 0;
    const auto on_point = [&](const Point& point, double elapsed) {
      if (point.kind == Point::kArrival) interval = point.number;
      if (point.kind != Point::kSpike) return true;
      if (count < slots) {
        double rate[D], gradient[D] = {}, slope = 0;
        const double one = 1;
        Model::rate(constants, point.x, rate);
        Model::excess_back(constants, point.x, &one, nullptr, gradient);
        for (int n = 0; n < D; ++n) slope += gradient[n] * rate[n];
        const double time = std::min(edges[interval] + elapsed, edges[interval + 1]);
        times[count] = after_arrival<T>(edges[interval], elapsed, time);
        slopes[count] = T(slope);
      }
      ++count;
      return !options.once && count < options.max_counted;
    };
    Trajectory<T, Model> trajectory(constants);
    const bool is_valid = trajectory.run(
        neurons.start(neuron), population.weight + neuron, population.neurons, population.rows,
        edges, intervals.rows(sample), intervals.used(sample), on_point);
    if (!is_valid) std::fill_n(times, slots, std::numeric_limits<T>::quiet_NaN());
  };
  const Index tiles = (population.neurons + kIntegratedLanes - 1) / kIntegratedLanes;
  ThreadPool::shared().run(population.batch * tiles, options.threads, [&](Index unit) {
    const Index sample = unit / tiles, first = unit % tiles * kIntegratedLanes;
    for (Index n = first; n < std::min(first + kIntegratedLanes, population.neurons); ++n)
      simulate(sample, n);
  });
}

/// Gradients; null for those that are not needed.
template <class T>
struct IntegratedGradients {
  T* weight;      // (rows, neurons)
  T* parameters;  // (kConstants + kVariables, neurons)
  T* time;        // (batch, arrivals), by slot
};

/// Backward pass of one neuron and one sample: the costate p = dL/dx goes back in time by
/// p' = -(df/dx)^T p, and the gradient with respect to the constants is the integral of (df/dc)^T p.
/// At an arrival p- = (da/dx)^T p+. At a spike, with the gradient g of the excess, the slope s = g . f,
/// and the cotangent E = dL/dt of the spike:
///
///     p- = (dr/dx)^T p+ + mu g,   mu = -(E + p+ . ((dr/dx) f(x-) - f(x+))) / s.
///
/// The trajectory is simulated again and recorded. Each step is then integrated backwards from the
/// state at its end, so that errors of x do not grow.
template <class T, class Model, bool kWithConstants>
class IntegratedBackward {
  static constexpr int D = Model::kVariables;
  using Point = TrajectoryPoint<D>;
  static constexpr int kOrder = series_order(T());
  static constexpr double kLog2Tolerance = log2_tolerance_of(T());

 public:
  IntegratedBackward(const double* constants, double slope_floor)
      : constants_(constants), slope_floor_(slope_floor), trajectory_(constants), series_(constants) {}

  /// Add to the gradients of one sample. weights: as in `Trajectory::run`. cotangent: dL/dt of each
  /// of `count` spikes. by_weight: `by_stride` apart, one for each row. by_time: one for each arrival,
  /// or null. by_constants, by_start: gradients of the neuron.
  template <class Edges, class Rows>
  void run(const double* start, const T* weights, Index stride, Index row_count, const Edges& edges,
           const Rows& rows, Index used, const T* cotangent, Index count, double* by_weight,
           Index by_stride, double* by_time, double* by_constants, double* by_start) {
    while (count > 0 && cotangent[count - 1] == 0) --count;
    if (count == 0) return;
    points_.clear();
    trajectory_.run(start, weights, stride, row_count, edges, rows, used,
                    [&](const Point& point, double) {
                      points_.push_back(point);
                      return !(point.kind == Point::kSpike && point.number == count - 1);
                    });
    std::fill_n(p_, D, 0.0);
    by_constants_ = by_constants;
    double drive = 0;  // of spikes that follow at once
    for (Index n = Index(points_.size()) - 1; n >= 0; --n) {
      const Point& point = points_[n];
      if (point.kind == Point::kStep) {
        propagate_step(point);
      } else if (point.kind == Point::kSpike) {
        drive = propagate_spike(point, cotangent[point.number] + drive);
      } else {
        const Index row = rows[point.number];
        const double weight = row < row_count ? double(weights[row * stride]) : 0.0;
        double before[D] = {}, of_weight = 0;
        Model::arrive_back(&weight, point.x, p_, &of_weight, before);
        if (by_time) {
          double after[D], rate_before[D], rate_after[D], change = 0;
          Model::arrive(&weight, point.x, after);
          Model::rate(constants_, point.x, rate_before);
          Model::rate(constants_, after, rate_after);
          for (int k = 0; k < D; ++k) change += before[k] * rate_before[k] - p_[k] * rate_after[k];
          by_time[point.number - 1] += change;
        }
        if (row < row_count) by_weight[row * by_stride] += of_weight;
        std::copy_n(before, D, p_);
      }
    }
    for (int n = 0; n < D; ++n) by_start[n] += p_[n];
  }

 private:
  /// Return the part of the drive that belongs to the previous spike, if this one follows at once.
  double propagate_spike(const Point& point, double cotangent) {
    double after[D], rate_before[D], rate_after[D], gradient[D] = {}, before[D] = {};
    Model::reset(constants_, point.x, after);
    Model::rate(constants_, point.x, rate_before);
    Model::rate(constants_, after, rate_after);
    double* const by_constants = kWithConstants ? by_constants_ : nullptr;
    Model::reset_back(constants_, point.x, p_, by_constants, before);
    double drive = cotangent, slope = 0;
    for (int n = 0; n < D; ++n) drive += before[n] * rate_before[n] - p_[n] * rate_after[n];
    std::copy_n(before, D, p_);
    if (point.immediate) return drive;
    const double one = 1;
    Model::excess_back(constants_, point.x, &one, nullptr, gradient);
    for (int n = 0; n < D; ++n) slope += gradient[n] * rate_before[n];
    const double mu = -drive / std::max(slope, slope_floor_);
    for (int n = 0; n < D; ++n) p_[n] += mu * gradient[n];
    if (by_constants) {
      double ignored[D] = {};
      Model::excess_back(constants_, point.x, &mu, by_constants, ignored);
    }
    return 0;
  }

  void propagate_step(const Point& point) {
    double x[D], remaining = point.duration;
    std::copy_n(point.x, D, x);
    for (int steps = 0; remaining > 0;) {
      const double unit = remaining;
      for (int n = 0; n < D; ++n) {
        series_.x[n][0] = x[n];
        series_.p[n][0] = p_[n];
      }
      const int order = compute_series(unit);
      double log2_length = 0;
      for (int n = 0; n < D && order == kOrder; ++n) {
        log2_length = std::min(log2_length, log2_reach(series_.x[n], order, kLog2Tolerance + 4));
        log2_length = std::min(log2_length, log2_reach(series_.p[n], order, kLog2Tolerance + 4));
      }
      const double u = log2_length < 0 ? std::exp2(log2_length) : 1.0;
      for (int n = 0; n < D; ++n) {
        x[n] = series_at(series_.x[n], order, u);
        p_[n] = series_at(series_.p[n], order, u);
      }
      if constexpr (kWithConstants)
        for (int f = 0; f < Model::kConstants; ++f) {
          double integral = 0;
          for (int k = order - 1; k >= 0; --k)
            integral = integral * u + series_.by_constant[f][k] / (k + 1);
          by_constants_[f] += integral * u * unit;
        }
      remaining = u < 1 ? remaining - u * unit : 0;
      if (!(u > 0) || ++steps > kMaxIntegrationSteps) {
        std::fill_n(p_, D, std::nan(""));
        return;
      }
    }
  }

  /// Compute the series in units of a time, and return their order: kOrder, or a smaller one of which
  /// the terms are small at that time.
  int compute_series(double unit) {
    const double tolerance = std::exp2(kLog2Tolerance);
    double largest_x[D], largest_p[D];
    for (int n = 0; n < D; ++n) {
      largest_x[n] = std::abs(series_.x[n][0]);
      largest_p[n] = std::abs(series_.p[n][0]);
    }
    for (int order = 0, small_orders = 0; order < kOrder;) {
      series_.template next<kWithConstants>(order++, unit);
      bool is_small = true;
      for (int n = 0; n < D; ++n) {
        const double x = std::abs(series_.x[n][order]), p = std::abs(series_.p[n][order]);
        is_small = is_small && x <= tolerance * largest_x[n] && p <= tolerance * largest_p[n];
        largest_x[n] = std::max(largest_x[n], std::min(x, 1e200));
        largest_p[n] = std::max(largest_p[n], std::min(p, 1e200));
      }
      small_orders = is_small ? small_orders + 1 : 0;
      if (small_orders == 2 && order >= 4) return order;
    }
    return kOrder;
  }

  const double* constants_;
  const double slope_floor_;
  Trajectory<T, Model> trajectory_;
  typename Model::BackSeries series_;
  std::vector<Point> points_;
  double p_[D];
  double* by_constants_ = nullptr;
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
  const auto run_lane = [&](auto with_constants, Index unit, Index lane) {
    const Index tile = units.tile(unit), chunk = units.chunk(unit), neuron = tile * kLanes + lane;
    IntegratedBackward<T, Model, decltype(with_constants)::value> backward(
        all.constants(neuron), all.slope_floor(neuron));
    double* const sum = sums.data() + (unit * kLanes + lane) * kSums;
    for (Index sample = units.begin(chunk); sample < units.begin(chunk + 1); ++sample) {
      const Index first = (sample * neurons + neuron) * slots;
      Index count = 0;
      while (count < slots && spike_time[first + count] < std::numeric_limits<T>::infinity())
        ++count;
      backward.run(all.start(neuron), population.weight + neuron, neurons, rows,
                   intervals.edges(sample), intervals.rows(sample), intervals.used(sample),
                   cotangent + first, count, tables.data() + unit * size + lane, kLanes,
                   gradients.time ? by_time.data() + tile * entries + sorted.first(sample) : nullptr,
                   sum, sum + kConstants);
    }
  };
  ThreadPool::shared().run(units.size(), options.threads, [&](Index unit) {
    const Index lanes = std::min(kLanes, neurons - units.tile(unit) * kLanes);
    for (Index lane = 0; lane < lanes; ++lane)
      gradients.parameters ? run_lane(std::true_type(), unit, lane)
                           : run_lane(std::false_type(), unit, lane);
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
