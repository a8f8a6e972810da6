// Current-based leaky integrate-and-fire neuron (CubaLIF) in closed form, one neuron at a time in
// double precision: the flow between events, threshold crossings, and derivatives of the flow.
//
//     v' = (j - v) / tau_mem,  j' = -j / tau_syn,   v(t) = v em + j k,  j(t) = j es.
//
// v is the membrane potential and j the synaptic current in units of voltage. The formulas are
// those of jaxsnn/event/dynamics/crossing.py. With tau_syn = inf the current is constant (LI and
// LIF nodes); with tau_mem = inf, too, v does not leak and v' = j (I and IF nodes).

#pragma once

#include "support.h"

namespace native {

/// Coefficients of the flow over a time: v(t) = v em + j k and j(t) = j es.
struct Flow {
  double em, es, k;
};

/// Derivatives of the flow's coefficients with respect to the time constants; all others are 0.
struct FlowDerivatives {
  double em_mem, k_mem, es_syn, k_syn;
};

// kConstantCurrent: tau_syn is inf and v monotone
enum class Ratio { kGeneral, kMemTwiceSyn, kSynTwiceMem, kConstantCurrent };

struct TimeConstants {
  double mem, syn;
  double leak, synaptic;  // 1 / tau_mem and 1 / tau_syn
  double gain;            // v' = j gain - v leak
  double slow, gap;       // the smaller of the two rates, and the difference to the larger one
  bool mem_longer;
  Ratio ratio = Ratio::kGeneral;

  TimeConstants() = default;
  TimeConstants(double tau_mem, double tau_syn, double eps) : mem(tau_mem), syn(tau_syn) {
    leak = 1 / mem;
    synaptic = 1 / syn;
    gain = std::isinf(mem) ? 1.0 : leak;
    mem_longer = mem >= syn;
    slow = mem_longer ? leak : synaptic;
    gap = mem_longer ? synaptic - leak : leak - synaptic;
    // Compare ratios with a tolerance: a deviation of this size does not affect the closed forms.
    ratio = std::isinf(syn)                            ? Ratio::kConstantCurrent
            : std::abs(mem - 2 * syn) <= 4 * eps * mem ? Ratio::kMemTwiceSyn
            : std::abs(syn - 2 * mem) <= 4 * eps * syn ? Ratio::kSynTwiceMem
                                                       : Ratio::kGeneral;
  }

  /// Return dv/dt.
  double rate(double v, double j) const { return std::isinf(mem) ? j : (j - v) * leak; }
};

/// Compute the flow from its exponentials. k is symmetric in the two: it is the slower exponential
/// times phi1 of the rates' difference, (1 - e^(-t gap)) / gap.
inline Flow flow_from_exponentials(const TimeConstants& taus, double t, double slow,
                                   double gap_expm1) {
  // slow = e^(-t taus.slow), gap_expm1 = expm1(-t taus.gap)
  double fast = slow + slow * gap_expm1;
  double k = taus.gap > 0 ? slow * (-gap_expm1 / taus.gap) * taus.gain : slow * (t * taus.gain);
  if (gap_expm1 == 0) k = slow * (t * taus.gain);
  return taus.mem_longer ? Flow{slow, fast, k} : Flow{fast, slow, k};
}

inline Flow flow_over(const TimeConstants& taus, double t) {
  const Exponential slow = exponential(-t * taus.slow);
  // tau_mem = 2 tau_syn: both exponentials are the same
  const double gap_expm1 = taus.gap == taus.slow ? slow.expm1 : exponential(-t * taus.gap).expm1;
  return flow_from_exponentials(taus, t, slow.value, gap_expm1);
}

/// Return the flow over one time interval followed by another.
inline Flow compose(const Flow& first, const Flow& next) {
  return {first.em * next.em, first.es * next.es, first.k * next.em + first.es * next.k};
}

/// Return the flow over the remainder of an interval, from the flows over the entire interval and
/// over its first part.
inline Flow remaining_flow(const Flow& total, const Flow& elapsed) {
  const double em = total.em / elapsed.em, per_es = 1 / elapsed.es;
  return {em, total.es * per_es, (total.k - em * elapsed.k) * per_es};
}

/// Derivative of phi1(z) = expm1(z) / z for z <= 0.
inline double phi1_derivative(double z) {
  if (z > -0.7) {
    // sum over n of (n + 1) / (n + 2)! z^n
    static const double terms[] = {1. / 2,
                                   2. / 6,
                                   3. / 24,
                                   4. / 120,
                                   5. / 720,
                                   6. / 5040,
                                   7. / 40320,
                                   8. / 362880,
                                   9. / 3628800,
                                   10. / 39916800,
                                   11. / 479001600,
                                   12. / 6227020800.,
                                   13. / 87178291200.};
    double series = 0;
    for (int n = 12; n >= 0; --n) series = series * z + terms[n];
    return series;
  }
  return (std::exp(z) * (z - 1) + 1) / (z * z);
}

inline FlowDerivatives flow_derivatives(const TimeConstants& taus, double t, const Flow& flow) {
  double slower = taus.mem_longer ? flow.em : flow.es;
  double bend = t * t * taus.leak * slower * phi1_derivative(-t * taus.gap);
  double stretch = flow.k * t * taus.slow * taus.slow;
  double sign = taus.mem_longer ? 1.0 : -1.0;
  FlowDerivatives derivatives;
  derivatives.em_mem = t * flow.em * taus.leak * taus.leak;
  derivatives.es_syn = t * flow.es * taus.synaptic * taus.synaptic;
  derivatives.k_mem =
      (taus.mem_longer ? stretch : 0.0) - flow.k * taus.leak - sign * bend * taus.leak * taus.leak;
  derivatives.k_syn =
      (taus.mem_longer ? 0.0 : stretch) + sign * bend * taus.synaptic * taus.synaptic;
  return derivatives;
}

/// Time and value of the next extremum of v; time 0 if there is none ahead.
struct Extremum {
  double time, value;
};

inline Extremum extremum(const TimeConstants& taus, double v, double j) {
  double d_tau = taus.mem / taus.syn - 1;
  double time = 0;
  if (j != 0) {
    double scale = j * (1 + d_tau);
    double z = d_tau * (v - j) / scale;
    if (z > -1) {
      if (std::abs(d_tau) > 0.1 && (z < -0.25 || z > 1048576.0))
        time = -(std::log(std::abs(j + d_tau * v)) - std::log(std::abs(scale))) * taus.mem / d_tau;
      else
        time = taus.mem * (j - v) / scale * (z == 0 ? 1.0 : std::log1p(z) / z);
    }
  }
  if (!(time > 0)) time = 0;
  return {time, j * std::exp(-time * taus.synaptic)};
}

/// Return whether v has a maximum between two states; `tiny` is the tolerance for underflow.
inline bool has_peak(const TimeConstants& taus, double v, double j, double v_end, double j_end,
                     double tiny) {
  if (taus.ratio == Ratio::kConstantCurrent) return false;
  bool rises_to_positive = j * taus.syn + (taus.mem - taus.syn) * v > 0;
  return j > v && j > 0 && j_end - v_end <= tiny * (std::abs(v) + std::abs(j)) && rises_to_positive;
}

inline bool peak_reaches(const TimeConstants& taus, double v, double j, double threshold) {
  switch (taus.ratio) {
    case Ratio::kMemTwiceSyn:
      return (v + j) * (v + j) - 4 * j * threshold >= 0;
    case Ratio::kSynTwiceMem:
      return j * j - (2 * j - v) * threshold >= 0;
    default:
      return extremum(taus, v, j).value >= threshold;
  }
}

inline double safe_quotient(double numerator, double denominator) {
  return numerator / (denominator == 0 ? 1.0 : denominator);
}

/// x = e^(-time) in (0, 1], y = 1 - x, and time = -log x.
struct Root {
  double x, y, time;
};

/// -log(1 - y) for 0 <= y < 0.25, as 2 artanh(y / (2 - y)): the series is in powers of at most
/// (1/7)^2.
inline double minus_log1m(double y) {
  const double s = y / (2 - y), z = s * s, z2 = z * z, z4 = z2 * z2;
  const double low = (1. / 3 + z * (1. / 5)) + z2 * (1. / 7 + z * (1. / 9));
  const double high = (1. / 11 + z * (1. / 13)) + z2 * (1. / 15 + z * (1. / 17));
  return 2 * s + 2 * s * z * (low + z4 * (high + z4 * (1. / 19)));
}

/// Return the root of a x + b x^2 = threshold at which v crosses upwards. y = 1 - x is computed
/// without cancellation, and the discriminant from whichever of x and y gives the smaller rounding
/// error.
inline Root quadratic(double a, double b, double rise, double threshold, double gap) {
  double terms_x[] = {a * a, 4 * b * threshold}, terms_y[] = {rise * rise, 4 * b * gap};
  bool use_x = terms_x[0] + std::abs(terms_x[1]) < terms_y[0] + std::abs(terms_y[1]);
  double root = std::sqrt(std::max(use_x ? terms_x[0] + terms_x[1] : terms_y[0] + terms_y[1], 0.0));
  double y = rise > 0 ? safe_quotient(2 * gap, rise + root) : safe_quotient(rise - root, -2 * b);
  y = std::max(y, 0.0);
  if (y < 0.25) return {1 - y, y, minus_log1m(y)};
  double x = a > 0 ? safe_quotient(a + root, -2 * b) : safe_quotient(-2 * threshold, root - a);
  x = std::min(std::max(x, std::numeric_limits<double>::min()), 1.0);
  return {x, 1 - x, -std::log(x)};
}

inline double bracket_middle(double low, double high) {
  double lower = std::max(low, std::max(high * 0x1p-66, std::numeric_limits<double>::min()));
  return high > 16 * lower ? std::sqrt(lower) * std::sqrt(high) : 0.5 * (low + high);
}

/// Estimate the time of the threshold crossing by a parabola with the first two derivatives of v.
inline double estimate_crossing(const TimeConstants& taus, double v, double j, double threshold) {
  const double slope = (j - v) * taus.leak, curvature = (-j * taus.synaptic - slope) * taus.leak;
  const double gap = threshold - v, discriminant = slope * slope + 2 * curvature * gap;
  return 2 * gap / (slope + std::sqrt(std::max(discriminant, 0.0)));
}

/// Find the crossing by Newton's method within a shrinking bracket, like `bracketed_root` in
/// bracketed_root.py.
inline double find_crossing_newton(const TimeConstants& taus, double v, double j, double threshold,
                                   double duration, bool ends_above, double eps) {
  // If v ends above the threshold, the interval contains exactly one crossing.
  const Extremum peak = ends_above ? Extremum{0, 0} : extremum(taus, v, j);
  bool has_peak = j > v && peak.time > 0;
  double low = 0, high = has_peak ? std::min(peak.time, duration) : duration;
  double start;
  if (ends_above) {
    start = estimate_crossing(taus, v, j, threshold);
  } else if (has_peak) {
    // Near its maximum v is about peak - curvature (t - peak_time)^2 / 2.
    double curvature = peak.value / (taus.mem * taus.syn);
    double half_width_squared =
        2 * std::max(peak.value - threshold, 0.0) / (curvature > 0 ? curvature : 1.0);
    start = peak.time - std::sqrt(half_width_squared);
  } else {
    double d = 1 / taus.syn - 1 / taus.mem;
    bool nearly_equal = std::abs(d) * taus.mem < 1e-4;
    start = peak.time + (nearly_equal ? taus.mem : std::log(taus.mem / taus.syn) / d);
  }
  double t = std::min(std::max(start, 0.0), high);
  if (!(t >= low && t <= high)) return t;  // NaN
  double previous_step = 2 * (high - low);
  for (int iteration = 0; iteration < 200; ++iteration) {
    Flow flow = flow_over(taus, t);
    double rest = v * flow.em, drive = j * flow.k;
    double value = rest + drive - threshold;
    double slope = (j * flow.es - rest - drive) * taus.leak;
    double rounding = 2 * eps * (std::abs(rest) + std::abs(drive) + std::abs(threshold));
    if (value <= 0)
      low = t;
    else
      high = t;
    bool rises = slope > 0;
    double step = -value / (slope == 0 ? 1.0 : slope), newton = t + step;
    // The error after a step is about v'' step^2 / (2 v'). Use the largest v'' on the way: at an
    // inflection point v'' is 0 although the error is not.
    double second = (-j * flow.es * taus.synaptic - slope) * taus.leak;
    double third = (j * flow.es * taus.synaptic * taus.synaptic - second) * taus.leak;
    double max_second = std::abs(second) + std::abs(third * step);
    bool in_bracket = rises && newton >= low && newton <= high;
    bool converged = std::abs(value) <= rounding || high - low <= 2 * eps * high ||
                     (rises && std::abs(step) <= 2 * eps * t) ||
                     (in_bracket && max_second * step * step <= eps * t * slope);
    if (converged) return in_bracket ? newton : t;
    double next_t =
        in_bracket && std::abs(step) <= 0.5 * previous_step ? newton : bracket_middle(low, high);
    previous_step = std::abs(next_t - t);
    t = next_t;
  }
  return t;
}

/// Find the crossing for a constant current: -tau log(1 - fraction) with fraction = (threshold - v)
/// / (j - v).
inline double find_crossing_constant_current(const TimeConstants& taus, double v, double j,
                                             double threshold) {
  if (std::isinf(taus.mem)) return safe_quotient(threshold - v, j);
  const double fraction = safe_quotient(threshold - v, j - v);
  return taus.mem *
         -(fraction < 0.5 ? std::log1p(-fraction) : std::log(safe_quotient(j - threshold, j - v)));
}

/// Time until v crosses the threshold, and the flow over that time.
struct Crossing {
  double wait;
  Flow flow;
};

/// Find the threshold crossing within `duration`, for v below the threshold. `ends_above`: v is at
/// or above the threshold at the end.
inline Crossing find_crossing(const TimeConstants& taus, double v, double j, double threshold,
                              double duration, bool ends_above, double eps) {
  double time;
  if (taus.ratio == Ratio::kMemTwiceSyn || taus.ratio == Ratio::kSynTwiceMem) {
    // The root of a quadratic is the exponential itself, so the flow needs no further exponentials.
    const bool mem_twice_syn = taus.ratio == Ratio::kMemTwiceSyn;
    const Root root = mem_twice_syn
                          ? quadratic(v + j, -j, j - v, threshold, threshold - v)
                          : quadratic(2 * j, v - 2 * j, 2 * (j - v), threshold, threshold - v);
    time = (mem_twice_syn ? taus.mem : taus.syn) * root.time;
    const double x = root.x, x_squared = x * x, k = x * root.y;
    if (time >= 0 && time <= duration)
      return {time, mem_twice_syn ? Flow{x, x_squared, k} : Flow{x_squared, x, 2 * k}};
  } else if (taus.ratio == Ratio::kConstantCurrent) {
    time = find_crossing_constant_current(taus, v, j, threshold);
  } else {
    time = find_crossing_newton(taus, v, j, threshold, duration, ends_above, eps);
  }
  time = std::min(std::max(time, 0.0), duration);
  return {time, flow_over(taus, time)};
}

}  // namespace native
