// Taylor coefficients of functions of time, one order after the other.
//
// If the coefficients of a and b are known up to the order k, those of a + b, a b, exp(a) and so on
// follow up to the order k by recurrences. For x' = f(x) the coefficients of f of the order k give
// those of x of the order k + 1, so that a program for f yields the series of x to any order.
// Source: A. Jorba and M. Zou, Experimental Mathematics 14, 99 (2005).

#pragma once

#include "lanes.h"

namespace native {

/// Number of coefficients of a series: the largest order is kMaxOrder.
constexpr int kMaxOrder = 20, kSeriesTerms = kMaxOrder + 1;
/// Coefficients of several neurons, one in each lane.
using Lanes = DoubleVector;

/// Functions of the C++ library in each lane.
#define NATIVE_FUNCTION(name)                                             \
  inline double each_##name(double a) { return std::name(a); }            \
  inline Lanes each_##name(Lanes a) {                                     \
    for (int n = 0; n < kDoubleLanes; ++n) a[n] = std::name(double(a[n])); \
    return a;                                                             \
  }
NATIVE_FUNCTION(expm1)
NATIVE_FUNCTION(log)
NATIVE_FUNCTION(log1p)
NATIVE_FUNCTION(sqrt)
NATIVE_FUNCTION(cbrt)
NATIVE_FUNCTION(tan)
NATIVE_FUNCTION(sinh)
NATIVE_FUNCTION(cosh)
NATIVE_FUNCTION(tanh)
NATIVE_FUNCTION(asin)
NATIVE_FUNCTION(acos)
NATIVE_FUNCTION(atan)
NATIVE_FUNCTION(asinh)
NATIVE_FUNCTION(acosh)
NATIVE_FUNCTION(atanh)
NATIVE_FUNCTION(erf)
NATIVE_FUNCTION(erfc)
#undef NATIVE_FUNCTION

inline double each_exp(double a) { return std::exp(a); }
inline double each_sin(double a) { return std::sin(a); }
inline double each_cos(double a) { return std::cos(a); }

/// Compute e^x. Large |x| are left to the C++ library.
inline Lanes each_exp(Lanes x) {
  if (bits_of(~(magnitude(x) < 700.0))) {
    for (int n = 0; n < kDoubleLanes; ++n) x[n] = std::exp(double(x[n]));
    return x;
  }
  const double magic = 0x1.8p52;  // rounds to an integer, which the low bits then hold
  const Lanes shifted = x * 1.4426950408889634 + magic, exponent = shifted - magic;
  Lanes r = x - exponent * 6.93147180369123816490e-01;
  r = r - exponent * 1.90821492927058770002e-10;
  LongVector bits;
  std::memcpy(&bits, &shifted, sizeof(bits));
  bits = (bits << 52) + (std::int64_t(1023) << 52);
  Lanes power;  // 2^exponent
  std::memcpy(&power, &bits, sizeof(power));
  return power + power * (r * phi1_series(r));
}

/// Compute 2^x for |x| < 1,000.
inline Lanes each_exp2(Lanes x) { return each_exp(x * 0.6931471805599453); }

/// Compute sine and cosine for |x| < 100,000: x = n pi / 2 + r, and Taylor series of r.
inline void sine_and_cosine(Lanes x, Lanes& sine, Lanes& cosine) {
  const double magic = 0x1.8p52;
  const Lanes shifted = x * 0.6366197723675814 + magic, n = shifted - magic;
  // pi / 2 in three parts. The products with the first two are exact.
  const Lanes r =
      ((x - n * 0x1.921fb544p+0) - n * 0x1.0b4611a6p-34) - n * 0x1.3198a2e037073p-69;
  const Lanes z = r * r, z2 = z * z, z4 = z2 * z2;
  const Lanes odd = ((-1. / 6 + z * (1. / 120)) + z2 * (-1. / 5040 + z * (1. / 362880))) +
                    z4 * ((-1. / 39916800 + z * (1. / 6227020800)) +
                          z2 * (-1. / 1307674368000 + z * (1. / 355687428096000)));
  const Lanes even = ((1. / 24 + z * (-1. / 720)) + z2 * (1. / 40320 + z * (-1. / 3628800))) +
                     z4 * ((1. / 479001600 + z * (-1. / 87178291200)) +
                           z2 * (1. / 20922789888000 + z * (-1. / 6402373705728000)));
  const Lanes s = r + r * (z * odd), c = 1.0 - (0.5 * z - z2 * even);
  LongVector quadrant;
  std::memcpy(&quadrant, &shifted, sizeof(quadrant));
  const LaneMask swapped = (quadrant & 1) != 0;
  sine = swapped ? c : s;
  cosine = swapped ? s : c;
  sine = (quadrant & 2) != 0 ? -sine : sine;
  cosine = ((quadrant + 1) & 2) != 0 ? -cosine : cosine;
}

inline Lanes each_sin(Lanes x) {
  Lanes sine, cosine;
  if (!bits_of(~(magnitude(x) < 1e5))) {
    sine_and_cosine(x, sine, cosine);
    return sine;
  }
  for (int n = 0; n < kDoubleLanes; ++n) x[n] = std::sin(double(x[n]));
  return x;
}

inline Lanes each_cos(Lanes x) {
  Lanes sine, cosine;
  if (!bits_of(~(magnitude(x) < 1e5))) {
    sine_and_cosine(x, sine, cosine);
    return cosine;
  }
  for (int n = 0; n < kDoubleLanes; ++n) x[n] = std::cos(double(x[n]));
  return x;
}

inline Lanes each_pow(Lanes a, Lanes exponent) {
  for (int n = 0; n < kDoubleLanes; ++n) a[n] = std::pow(double(a[n]), double(exponent[n]));
  return a;
}
inline Lanes each_pow(Lanes a, double exponent) { return each_pow(a, Lanes{} + exponent); }

/// Return the coefficient k of a constant.
inline Lanes constant_term(Lanes a, int k) { return k == 0 ? a : Lanes{}; }
inline Lanes constant_term(double a, int k) { return constant_term(Lanes{} + a, k); }

/// Return the coefficient k of a b.
inline Lanes product_term(const Lanes* a, const Lanes* b, int k) {
  Lanes even = {}, odd = {};
  int i = 0;
  for (; i < k; i += 2) {
    even += a[i] * b[k - i];
    odd += a[i + 1] * b[k - i - 1];
  }
  return (i == k ? even + a[k] * b[0] : even) + odd;
}

/// Return the coefficient k of a a.
inline Lanes square_term(const Lanes* a, int k) {
  Lanes sum = {};
  for (int i = 0; 2 * i < k; ++i) sum += a[i] * a[k - i];
  return k % 2 ? 2.0 * sum : 2.0 * sum + a[k / 2] * a[k / 2];
}

/// Return the coefficient k >= 1 of a function of a whose derivative by a is g: sum i a_i g_(k-i) / k.
inline Lanes chain_term(const Lanes* a, const Lanes* g, int k) {
  Lanes even = {}, odd = {};
  int i = 1;
  for (; i < k; i += 2) {
    odd += double(i) * a[i] * g[k - i];
    even += double(i + 1) * a[i + 1] * g[k - i - 1];
  }
  return ((i == k ? odd + double(k) * a[k] * g[0] : odd) + even) * (1.0 / k);
}

/// Return the coefficient k of q = a / b. a_k: coefficient k of a.
inline Lanes quotient_term(Lanes a_k, const Lanes* b, const Lanes* q, int k) {
  Lanes sum = a_k;
  for (int i = 1; i <= k; ++i) sum -= b[i] * q[k - i];
  return sum / b[0];
}

/// Return the coefficient k >= 1 of l = log(a).
inline Lanes log_term(const Lanes* a, const Lanes* l, int k) {
  Lanes sum = {};
  for (int i = 1; i < k; ++i) sum += double(i) * l[i] * a[k - i];
  return (a[k] - sum * (1.0 / k)) / a[0];
}

/// Return the coefficient k >= 1 of p = a^exponent, for a number or one in each lane.
template <class Exponent>
inline Lanes power_term(const Lanes* a, Exponent exponent, const Lanes* p, int k) {
  Lanes sum = {};
  for (int i = 1; i <= k; ++i) sum += (exponent * double(i) - double(k - i)) * a[i] * p[k - i];
  return sum / (double(k) * a[0]);
}

/// Return log2 |x| with an error below 0.09; -1023 for 0.
inline Lanes rough_log2(Lanes x) {
  LongVector bits;
  std::memcpy(&bits, &x, sizeof(bits));
  bits &= std::int64_t(0x7fffffffffffffff);
  return __builtin_convertvector(bits, Lanes) * 0x1p-52 - 1023.0;
}

/// Return log2 of the largest u at which the last two of the terms c[k] u^k, k <= order, are smaller
/// than a tolerance times the largest of the first three. order: of each lane, at most `last`.
inline Lanes log2_reach(const Lanes* c, Lanes order, int last, double log2_tolerance) {
  const Lanes never = Lanes{} + 1e9;
  Lanes reach = never;
  for (int m = last; m >= 3; --m) {
    const LaneMask is_end = (order == double(m)) | (order == double(m + 1));
    if (!bits_of(is_end)) continue;
    const Lanes last_term = rough_log2(c[m]);
    Lanes longest = -never;
    for (int k = 0; k < 3; ++k)
      longest = maximum(longest,
                        (log2_tolerance + rough_log2(c[k]) - last_term) * (1.0 / (m - k)));
    reach = is_end & (c[m] != 0.0) ? minimum(reach, longest) : reach;
  }
  return reach;
}

/// Return c[0] + c[1] u + ... + c[order] u^order.
inline Lanes series_at(const Lanes* c, int order, Lanes u) {
  Lanes value = c[order];
  for (int k = order - 1; k >= 0; --k) value = value * u + c[k];
  return value;
}

/// Return the derivative of `series_at` by u.
inline Lanes series_slope(const Lanes* c, int order, Lanes u) {
  Lanes value = double(order) * c[order];
  for (int k = order - 1; k >= 1; --k) value = value * u + double(k) * c[k];
  return value;
}

}  // namespace native
