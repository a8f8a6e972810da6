// Neurons with linear equations and any parameters, whose coefficients are arrays:
//
//     x' = A x between events,  x += w e at an arrival of weight w,
//     a spike where x[0] rises to the threshold:  x = R x + r.
//
// jaxsnn/event/dynamics/linear_form.py derives the coefficients from a neuron model. The flow over a
// time is the matrix exponential. It is computed by a Taylor series over a fraction of the time,
// which is then doubled, so that equal and complex eigenvalues of A are no special cases.
//
// The search for threshold crossings relies on bounds. Let M be |A| with max(A_ii, 0) on its
// diagonal. Entry by entry |exp(A s)| <= exp(M s), which increases with s. So over an interval of
// length h x[0] deviates from the chord between its ends by at most
//
//     h^2 / 8 max |x[0]''|,   |x[0]''| <= (exp(M h) |A^2 x|)[0]   or   (|A^2|_0 exp(M h)) |x|,
//
// and if the chord plus this deviation stays below the threshold, no crossing is missed.

#pragma once

#include "polynomial.h"
#include "tiles.h"

namespace native {

/// Places of the coefficients in the array (fields, neurons).
template <int D>
struct LinearFields {
  static constexpr Index kFlow = 0, kResetMatrix = D * D, kResetOffset = 2 * D * D,
                         kStart = kResetOffset + D, kThreshold = kStart + D,
                         kSlopeFloor = kThreshold + 1, kFields = kSlopeFloor + 1;
};

/// Maximum number of parameters that the flow depends on, if gradients are needed.
constexpr Index kMaxFlowParameters = 8;

template <int D, class Number = double>
struct Matrix {
  Number m[D * D];  // row by row

  Number& operator()(int row, int column) { return m[row * D + column]; }
  const Number& operator()(int row, int column) const { return m[row * D + column]; }
};

template <int D, class Number>
inline Matrix<D, Number> operator*(const Matrix<D, Number>& a, const Matrix<D, Number>& b) {
  Matrix<D, Number> product;
  for (int row = 0; row < D; ++row)
    for (int column = 0; column < D; ++column) {
      Number sum = a(row, 0) * b(0, column);
      for (int n = 1; n < D; ++n) sum += a(row, n) * b(n, column);
      product(row, column) = sum;
    }
  return product;
}

template <int D, class Number>
inline Matrix<D, Number> operator+(Matrix<D, Number> a, const Matrix<D, Number>& b) {
  for (int n = 0; n < D * D; ++n) a.m[n] += b.m[n];
  return a;
}

template <int D, class Number, class Factor>
inline Matrix<D, Number> scaled(Matrix<D, Number> a, Factor factor) {
  for (int n = 0; n < D * D; ++n) a.m[n] *= factor;
  return a;
}

/// Multiply a matrix, or its transpose, by a vector.
template <int D>
inline void apply(const Matrix<D>& a, const double (&x)[D], double (&product)[D]) {
  for (int row = 0; row < D; ++row) {
    product[row] = 0;
    for (int n = 0; n < D; ++n) product[row] += a(row, n) * x[n];
  }
}

template <int D>
inline void apply_transposed(const Matrix<D>& a, const double (&x)[D], double (&product)[D]) {
  for (int column = 0; column < D; ++column) {
    product[column] = 0;
    for (int n = 0; n < D; ++n) product[column] += a(n, column) * x[n];
  }
}

/// Return the maximum norm of a matrix: the largest sum of the absolute values of a row.
template <int D>
inline double norm_of(const Matrix<D>& a) {
  double norm = 0;
  for (int row = 0; row < D; ++row) {
    double sum = 0;
    for (int n = 0; n < D; ++n) sum += std::abs(a(row, n));
    norm = std::max(norm, sum);
  }
  return norm;
}

/// Relative error of the Taylor series, below the precision of the results.
constexpr double series_tolerance(float) { return 0x1p-36; }
constexpr double series_tolerance(double) { return 0x1p-60; }
constexpr int kMaxTerms = 26, kMaxHalvings = 60;
/// Bound on |A| t for which a Taylor series is summed directly.
constexpr double kSeriesRadius = 0.5;

/// Return how often a time must be halved until |A| t <= radius.
inline int halvings(double norm, double radius) {
  int count = 0;
  for (; norm > radius && count < kMaxHalvings; norm *= 0.5) ++count;
  return count;
}

/// exp(X) - 1 and its derivatives in some directions. Without the 1, small entries keep their
/// relative precision while the time is doubled.
template <int D, class Number>
struct Exponential1 {
  Matrix<D, Number> value;
  Matrix<D, Number> by[kMaxFlowParameters];

  /// Sum the series for a small X of a norm up to `norm`; dx: derivatives of X.
  void sum_series(const Matrix<D, Number>& x, const Matrix<D, Number>* dx, Index directions,
                  double norm, double tolerance) {
    Matrix<D, Number> term = x, term_by[kMaxFlowParameters];
    value = x;
    for (Index f = 0; f < directions; ++f) by[f] = term_by[f] = dx[f];
    double size = 1;
    for (int k = 2; k < kMaxTerms && (size *= norm / k) * k > tolerance; ++k) {
      for (Index f = 0; f < directions; ++f) {
        term_by[f] = scaled(dx[f] * term + x * term_by[f], 1.0 / k);
        by[f] = by[f] + term_by[f];
      }
      term = scaled(x * term, 1.0 / k);
      value = value + term;
    }
  }

  /// Double the time.
  void square(Index directions) {
    for (Index f = 0; f < directions; ++f)
      by[f] = scaled(by[f], 2.0) + (value * by[f] + by[f] * value);
    value = scaled(value, 2.0) + value * value;
  }

  /// Compute for any X. x, dx: see `sum_series`, of a norm up to `norm`.
  void compute(const Matrix<D, Number>& x, const Matrix<D, Number>* dx, Index directions,
               double norm, double tolerance) {
    const int count = halvings(norm, kSeriesRadius / 4);
    const double part = std::ldexp(1.0, -count);
    Matrix<D, Number> dx_part[kMaxFlowParameters];
    for (Index f = 0; f < directions; ++f) dx_part[f] = scaled(dx[f], part);
    sum_series(scaled(x, part), dx_part, directions, norm * part, tolerance);
    for (int n = 0; n < count; ++n) square(directions);
  }
};

/// Bounds of the flow of one neuron over times h_0 2^q: rows of length D. A time is rounded up.
template <int D>
struct FlowBounds {
  double first = 1;  // h_0
  std::vector<std::array<double, D>> flow;       // of |exp(A s)|_0
  std::vector<std::array<double, D>> curvature;  // of |A^2 exp(A s)|_0

  FlowBounds() = default;
  FlowBounds(const Matrix<D>& a, double norm, double longest) {
    // A bound that overflows must not become inf: inf * 0 is NaN.
    constexpr double kLargest = 1e30;
    first = norm > 0 ? 0.0625 / norm : std::max(longest, 1e-30);
    Matrix<D> bound;
    for (int row = 0; row < D; ++row)
      for (int n = 0; n < D; ++n)
        bound(row, n) = row == n ? std::max(a(row, n), 0.0) : std::abs(a(row, n));
    const Matrix<D> square = a * a;
    Exponential1<D, double> growth;
    growth.sum_series(scaled(bound, first), nullptr, 0, first * norm, series_tolerance(double()));
    for (double time = first;; time *= 2) {
      std::array<double, D> flow_row, curvature_row;
      for (int n = 0; n < D; ++n) {
        double sum = std::abs(square(0, n));
        for (int k = 0; k < D; ++k) sum += std::abs(square(0, k)) * growth.value(k, n);
        // The factor covers the rounding of these bounds. NaN becomes the largest bound.
        flow_row[n] = (growth.value(0, n) + (n == 0)) * (1 + 1e-9);
        curvature_row[n] = sum * (1 + 1e-9);
        if (!(flow_row[n] < kLargest)) flow_row[n] = kLargest;
        if (!(curvature_row[n] < kLargest)) curvature_row[n] = kLargest;
      }
      flow.push_back(flow_row);
      curvature.push_back(curvature_row);
      if (!(time < longest) || flow.size() > 200) break;
      growth.square(0);
      for (int n = 0; n < D * D; ++n)
        growth.value.m[n] = std::min(growth.value.m[n], 1e100);
    }
  }

  int index(double time) const {
    int number = 0;
    for (double bound = first; bound < time && number + 1 < int(flow.size()); bound *= 2) ++number;
    return number;
  }
};

/// Coefficients of one neuron in double precision.
template <int D>
struct LinearNeuron {
  Matrix<D> a, a_squared, a_transposed, reset;
  double offset[D], start[D];
  double threshold, slope_floor, norm, norm_transposed;
  bool starts_above;

  template <class T>
  LinearNeuron(const T* fields, Index stride) {
    using Fields = LinearFields<D>;
    for (int n = 0; n < D * D; ++n) {
      a.m[n] = fields[(Fields::kFlow + n) * stride];
      reset.m[n] = fields[(Fields::kResetMatrix + n) * stride];
    }
    for (int n = 0; n < D; ++n) {
      offset[n] = fields[(Fields::kResetOffset + n) * stride];
      start[n] = fields[(Fields::kStart + n) * stride];
    }
    threshold = fields[Fields::kThreshold * stride];
    slope_floor = fields[Fields::kSlopeFloor * stride];
    a_squared = a * a;
    norm = norm_of(a);
    for (int row = 0; row < D; ++row)
      for (int n = 0; n < D; ++n) a_transposed(row, n) = a(n, row);
    norm_transposed = norm_of(a_transposed);
    starts_above = start[0] >= threshold;
  }

  bool same_flow(const LinearNeuron& neuron) const {
    return std::memcmp(&a, &neuron.a, sizeof(a)) == 0;
  }

  /// Return the state after a spike.
  void after_spike(const double (&before)[D], double (&after)[D]) const {
    apply(reset, before, after);
    for (int n = 0; n < D; ++n) after[n] += offset[n];
  }
};

/// All neurons of a population, and what they share.
template <class T, int D>
struct LinearPopulation {
  std::vector<LinearNeuron<D>> neurons;
  std::vector<FlowBounds<D>> bounds;  // one for each neuron, or one for all
  double arrival[D];                  // e
  double norm = 0;                    // the largest |A|
  bool uniform = true;                // A is the same for all neurons

  LinearPopulation(const Population<T>& population, const T* arrival_vector, bool with_bounds) {
    for (Index n = 0; n < population.neurons; ++n) {
      neurons.emplace_back(population.parameters + n, population.neurons);
      norm = std::max(norm, neurons[n].norm);
      uniform = uniform && neurons[n].same_flow(neurons[0]);
    }
    if (!(norm < std::numeric_limits<double>::max())) norm = 0;  // the results are NaN
    for (int n = 0; n < D; ++n) arrival[n] = arrival_vector[n];
    if (!with_bounds) return;
    for (Index n = 0; n < (uniform ? 1 : population.neurons); ++n)
      bounds.emplace_back(neurons[n].a, norm, population.t_end);
  }

  const FlowBounds<D>& bounds_of(Index neuron) const { return bounds[uniform ? 0 : neuron]; }
};

template <int D>
inline bool is_finite(const double (&x)[D]) {
  double sum = 0;
  for (int n = 0; n < D; ++n) sum += 0 * x[n];
  return sum == 0;
}

/// Terms A^k x / k! t^k of the series of exp(A t) x.
template <int D>
struct StateSeries {
  double terms[kMaxTerms][D];
  int degree;

  StateSeries(const Matrix<D>& a, const double (&x)[D], double t, double norm, double tolerance) {
    for (int n = 0; n < D; ++n) terms[0][n] = x[n];
    degree = 0;
    double size = 1;
    do {
      const int k = ++degree;
      apply(a, terms[k - 1], terms[k]);
      for (int n = 0; n < D; ++n) terms[k][n] *= t / k;
      size *= norm * t / k;
    } while (degree < kMaxTerms - 1 && size > tolerance);
  }

  /// Return the state after a fraction u of the time.
  void at(double u, double (&x)[D]) const {
    for (int n = 0; n < D; ++n) {
      x[n] = terms[degree][n];
      for (int k = degree - 1; k >= 0; --k) x[n] = x[n] * u + terms[k][n];
    }
  }
};

/// Results of the forward pass; arrays (batch, neurons, max_spikes), `state` with an axis of length D
/// behind these, `count` (batch, neurons).
template <class T>
struct LinearSpikes {
  T* time;
  T* slope;
  T* state;  // just before the spike
  std::int32_t* count;
};

template <class V>
inline V absolute(V x) {
  return x < V{} ? -x : x;
}

/// Vectors in a tile, also for few neurons: each width would take as long to compile again.
constexpr int kLinearVectors = 2;

}  // namespace native
