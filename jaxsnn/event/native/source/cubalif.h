// The current-based neuron, one at a time and in double precision: flow, crossings, derivatives.
//
//     v' = (j - v) / tau_mem,  j' = -j / tau_syn,   v(t) = v em + j k,  j(t) = j es.
//
// The formulas are those of jaxsnn/event/dynamics/crossing.py. A tau_syn of inf is a j that stays, and
// with it a tau_mem of inf a v that does not leak and rises by j: LI and LIF, I and IF.

#pragma once

#include "support.h"

namespace native {

/// The flow's coefficients over some time.
struct Flow {
  double em, es, k;
};

/// Derivatives of the flow's coefficients by the time constants; the others are 0.
struct FlowBy {
  double em_mem, k_mem, es_syn, k_syn;
};

enum class Ratio { kAny, kDouble, kHalf, kHeld };  // kHeld: j stays, v is monotone

struct Taus {
  double mem, syn;
  double leak, synaptic;    // rates
  double gain;              // v' = j gain - v leak
  double slow, gap;         // the smaller rate, and by how much the other is larger
  bool mem_longer;
  Ratio ratio = Ratio::kAny;

  Taus() = default;
  Taus(double tau_mem, double tau_syn, double eps) : mem(tau_mem), syn(tau_syn) {
    leak = 1 / mem;
    synaptic = 1 / syn;
    gain = std::isinf(mem) ? 1.0 : leak;
    mem_longer = mem >= syn;
    slow = mem_longer ? leak : synaptic;
    gap = mem_longer ? synaptic - leak : leak - synaptic;
    // equal up to rounding: the closed forms hold
    ratio = std::isinf(syn)                            ? Ratio::kHeld
            : std::abs(mem - 2 * syn) <= 4 * eps * mem ? Ratio::kDouble
            : std::abs(syn - 2 * mem) <= 4 * eps * syn ? Ratio::kHalf
                                                       : Ratio::kAny;
  }

  /// v'
  double rate(double v, double j) const { return std::isinf(mem) ? j : (j - v) * leak; }
};

/// k, symmetric in its two exponentials: the slower one, and phi1 of their difference.
inline Flow flow_of(const Taus& taus, double t, double slow, double bend) {
  // slow = e^(-t slow), bend = expm1(-t gap)
  double fast = slow + slow * bend;
  double k = taus.gap > 0 ? slow * (-bend / taus.gap) * taus.gain : slow * (t * taus.gain);
  if (bend == 0) k = slow * (t * taus.gain);
  return taus.mem_longer ? Flow{slow, fast, k} : Flow{fast, slow, k};
}

inline Flow decay(const Taus& taus, double t) {
  const Exponential slow = exponential(-t * taus.slow);
  // tau_mem = 2 tau_syn: the same again
  const double bend = taus.gap == taus.slow ? slow.expm1 : exponential(-t * taus.gap).expm1;
  return flow_of(taus, t, slow.value, bend);
}

/// The flow over a time and then another.
inline Flow then(const Flow& first, const Flow& next) {
  return {first.em * next.em, first.es * next.es, first.k * next.em + first.es * next.k};
}

/// The flow of what is left of a time when the first part of it is over, of both of which it is known.
inline Flow rest_of(const Flow& whole, const Flow& part) {
  const double em = whole.em / part.em, to_es = 1 / part.es;
  return {em, whole.es * to_es, (whole.k - em * part.k) * to_es};
}

/// Derivative of phi1(z) = expm1(z) / z for z <= 0.
inline double phi1_derivative(double z) {
  if (z > -0.7) {
    // sum over n of (n + 1) / (n + 2)! z^n
    static const double terms[] = {1. / 2,       2. / 6,       3. / 24,       4. / 120,
                                   5. / 720,     6. / 5040,    7. / 40320,    8. / 362880,
                                   9. / 3628800, 10. / 39916800, 11. / 479001600,
                                   12. / 6227020800., 13. / 87178291200.};
    double series = 0;
    for (int n = 12; n >= 0; --n) series = series * z + terms[n];
    return series;
  }
  return (std::exp(z) * (z - 1) + 1) / (z * z);
}

inline FlowBy decay_by(const Taus& taus, double t, const Flow& flow) {
  double slower = taus.mem_longer ? flow.em : flow.es;
  double bend = t * t * taus.leak * slower * phi1_derivative(-t * taus.gap);
  double stretch = flow.k * t * taus.slow * taus.slow;
  double sign = taus.mem_longer ? 1.0 : -1.0;
  FlowBy by;
  by.em_mem = t * flow.em * taus.leak * taus.leak;
  by.es_syn = t * flow.es * taus.synaptic * taus.synaptic;
  by.k_mem = (taus.mem_longer ? stretch : 0.0) - flow.k * taus.leak -
             sign * bend * taus.leak * taus.leak;
  by.k_syn = (taus.mem_longer ? 0.0 : stretch) + sign * bend * taus.synaptic * taus.synaptic;
  return by;
}

/// Time and value of v's extremum ahead; time 0 where there is none.
struct Extremum {
  double time, value;
};

inline Extremum extremum(const Taus& taus, double v, double j) {
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

/// Whether v has a maximum between a state and a later one, `tiny` being what underflow may do.
inline bool peaks(const Taus& taus, double v, double j, double v_end, double j_end, double tiny) {
  if (taus.ratio == Ratio::kHeld) return false;
  bool comes_up = j * taus.syn + (taus.mem - taus.syn) * v > 0;
  return j > v && j > 0 && j_end - v_end <= tiny * (std::abs(v) + std::abs(j)) && comes_up;
}

inline bool peak_reaches(const Taus& taus, double v, double j, double threshold) {
  switch (taus.ratio) {
    case Ratio::kDouble:
      return (v + j) * (v + j) - 4 * j * threshold >= 0;
    case Ratio::kHalf:
      return j * j - (2 * j - v) * threshold >= 0;
    default:
      return extremum(taus, v, j).value >= threshold;
  }
}

inline double quotient(double up, double down) { return up / (down == 0 ? 1.0 : down); }

/// x in (0, 1], 1 - x and -log x.
struct Root {
  double x, y, time;
};

/// -log(1 - y) for 0 <= y < 0.25: 2 artanh(y / (2 - y)), whose series goes by the square of at most 1/7.
inline double minus_log1m(double y) {
  const double s = y / (2 - y), z = s * s, z2 = z * z, z4 = z2 * z2;
  const double low = (1. / 3 + z * (1. / 5)) + z2 * (1. / 7 + z * (1. / 9));
  const double high = (1. / 11 + z * (1. / 13)) + z2 * (1. / 15 + z * (1. / 17));
  return 2 * s + 2 * s * z * (low + z4 * (high + z4 * (1. / 19)));
}

/// The root of a x + b x^2 = threshold at which v crosses upwards.
inline Root quadratic(double a, double b, double rise, double threshold, double gap) {
  double of_x[] = {a * a, 4 * b * threshold}, of_y[] = {rise * rise, 4 * b * gap};
  bool by_x = of_x[0] + std::abs(of_x[1]) < of_y[0] + std::abs(of_y[1]);
  double root = std::sqrt(std::max(by_x ? of_x[0] + of_x[1] : of_y[0] + of_y[1], 0.0));
  double y = rise > 0 ? quotient(2 * gap, rise + root) : quotient(rise - root, -2 * b);
  y = std::max(y, 0.0);
  if (y < 0.25) return {1 - y, y, minus_log1m(y)};
  double x = a > 0 ? quotient(a + root, -2 * b) : quotient(-2 * threshold, root - a);
  x = std::min(std::max(x, std::numeric_limits<double>::min()), 1.0);
  return {x, 1 - x, -std::log(x)};
}

inline double middle(double low, double high) {
  double floor = std::max(low, std::max(high * 0x1p-66, std::numeric_limits<double>::min()));
  return high > 16 * floor ? std::sqrt(floor) * std::sqrt(high) : 0.5 * (low + high);
}

/// About when v comes to the threshold: as if it went on as its first two derivatives say.
inline double parabola(const Taus& taus, double v, double j, double threshold) {
  const double slope = (j - v) * taus.leak, bend = (-j * taus.synaptic - slope) * taus.leak;
  const double gap = threshold - v, square = slope * slope + 2 * bend * gap;
  return 2 * gap / (slope + std::sqrt(std::max(square, 0.0)));
}

/// Newton's method in a bracket that shrinks, as `bracketed_root` in bracketed_root.py.
inline double solve_any(const Taus& taus, double v, double j, double threshold, double duration,
                        bool ends_above, double eps) {
  // A v that ends above the threshold has come to it once.
  const Extremum peak = ends_above ? Extremum{0, 0} : extremum(taus, v, j);
  bool has_peak = j > v && peak.time > 0;
  double low = 0, high = has_peak ? std::min(peak.time, duration) : duration;
  double start;
  if (ends_above) {
    start = parabola(taus, v, j, threshold);
  } else if (has_peak) {
    // v is about peak - curvature (t - peak_time)^2 / 2
    double curvature = peak.value / (taus.mem * taus.syn);
    double bowl = 2 * std::max(peak.value - threshold, 0.0) / (curvature > 0 ? curvature : 1.0);
    start = peak.time - std::sqrt(bowl);
  } else {
    double d = 1 / taus.syn - 1 / taus.mem;
    bool nearly_equal = std::abs(d) * taus.mem < 1e-4;
    start = peak.time + (nearly_equal ? taus.mem : std::log(taus.mem / taus.syn) / d);
  }
  double t = std::min(std::max(start, 0.0), high);
  if (!(t >= low && t <= high)) return t;  // NaN
  double last = 2 * (high - low);
  for (int count = 0; count < 200; ++count) {
    Flow flow = decay(taus, t);
    double rest = v * flow.em, drive = j * flow.k;
    double value = rest + drive - threshold;
    double slope = (j * flow.es - rest - drive) * taus.leak;
    double rounding = 2 * eps * (std::abs(rest) + std::abs(drive) + std::abs(threshold));
    if (value <= 0) low = t; else high = t;
    bool towards = slope > 0;
    double step = -value / (slope == 0 ? 1.0 : slope), newton = t + step;
    // what a step leaves is about v'' step^2 / (2 v'), with what v'' is on the way: 0 by chance
    // where v bends the other way
    double bend = (-j * flow.es * taus.synaptic - slope) * taus.leak;
    double third = (j * flow.es * taus.synaptic * taus.synaptic - bend) * taus.leak;
    double most = std::abs(bend) + std::abs(third * step);
    bool inside = towards && newton >= low && newton <= high;
    bool found = std::abs(value) <= rounding || high - low <= 2 * eps * high ||
                 (towards && std::abs(step) <= 2 * eps * t) ||
                 (inside && most * step * step <= eps * t * slope);
    if (found) return inside ? newton : t;
    double after = inside && std::abs(step) <= 0.5 * last ? newton : middle(low, high);
    last = std::abs(after - t);
    t = after;
  }
  return t;
}

/// The crossing under a j that stays, -tau log(1 - share) with the threshold's share of the way to j.
inline double solve_held(const Taus& taus, double v, double j, double threshold) {
  if (std::isinf(taus.mem)) return quotient(threshold - v, j);
  const double share = quotient(threshold - v, j - v);
  return taus.mem * -(share < 0.5 ? std::log1p(-share) : std::log(quotient(j - threshold, j - v)));
}

/// When v crosses the threshold, and the flow until then.
struct Crossing {
  double wait;
  Flow flow;
};

/// Of a v below the threshold, within `duration`; `ends_above`: it is at the threshold or above then.
inline Crossing solve(const Taus& taus, double v, double j, double threshold, double duration,
                      bool ends_above, double eps) {
  double time;
  if (taus.ratio == Ratio::kDouble || taus.ratio == Ratio::kHalf) {
    // the exponentials are what the time comes of
    const bool twice = taus.ratio == Ratio::kDouble;
    const Root root = twice ? quadratic(v + j, -j, j - v, threshold, threshold - v)
                            : quadratic(2 * j, v - 2 * j, 2 * (j - v), threshold, threshold - v);
    time = (twice ? taus.mem : taus.syn) * root.time;
    const double x = root.x, square = x * x, k = x * root.y;
    if (time >= 0 && time <= duration)
      return {time, twice ? Flow{x, square, k} : Flow{square, x, 2 * k}};
  } else if (taus.ratio == Ratio::kHeld) {
    time = solve_held(taus, v, j, threshold);
  } else {
    time = solve_any(taus, v, j, threshold, duration, ends_above, eps);
  }
  time = std::min(std::max(time, 0.0), duration);
  return {time, decay(taus, time)};
}

}  // namespace native
