// Taylor coefficients of functions of time, one order after the other.
//
// If the coefficients of a and b are known up to the order k, those of a + b, a b, exp(a) and so on
// follow up to the order k by recurrences. For x' = f(x) the coefficients of f of the order k give
// those of x of the order k + 1, so that a program for f yields the series of x to any order.
// Source: A. Jorba and M. Zou, Experimental Mathematics 14, 99 (2005).

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace native {

/// Number of coefficients of a series: the largest order is kMaxOrder.
constexpr int kMaxOrder = 20, kSeriesTerms = kMaxOrder + 1;

/// Return the coefficient k of a b.
inline double product_term(const double* a, const double* b, int k) {
  double even = 0, odd = 0;
  int i = 0;
  for (; i < k; i += 2) {
    even += a[i] * b[k - i];
    odd += a[i + 1] * b[k - i - 1];
  }
  return (i == k ? even + a[k] * b[0] : even) + odd;
}

/// Return the coefficient k >= 1 of a function of a whose derivative by a is g: sum i a_i g_(k-i) / k.
inline double chain_term(const double* a, const double* g, int k) {
  double sum = 0;
  for (int i = 1; i <= k; ++i) sum += i * a[i] * g[k - i];
  return sum / k;
}

/// Return the coefficient k of q = a / b. a_k: coefficient k of a.
inline double quotient_term(double a_k, const double* b, const double* q, int k) {
  double sum = a_k;
  for (int i = 1; i <= k; ++i) sum -= b[i] * q[k - i];
  return sum / b[0];
}

/// Return the coefficient k >= 1 of l = log(a).
inline double log_term(const double* a, const double* l, int k) {
  double sum = 0;
  for (int i = 1; i < k; ++i) sum += i * l[i] * a[k - i];
  return (a[k] - sum / k) / a[0];
}

/// Return the coefficient k >= 1 of p = a^exponent.
inline double power_term(const double* a, double exponent, const double* p, int k) {
  double sum = 0;
  for (int i = 1; i <= k; ++i) sum += (exponent * i - (k - i)) * a[i] * p[k - i];
  return sum / (k * a[0]);
}

/// Return log2 |x| with an error below 0.09; -1023 for 0.
inline double rough_log2(double x) {
  std::int64_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return double(bits & std::int64_t(0x7fffffffffffffff)) * 0x1p-52 - 1023;
}

/// Return log2 of the largest u at which the last two of the terms c[k] u^k, k <= order, are smaller
/// than a tolerance times the largest of the first three.
inline double log2_reach(const double* c, int order, double log2_tolerance) {
  double reach = 1e9;
  for (int m = order; m >= order - 1; --m) {
    if (c[m] == 0) continue;
    double longest = -1e9;
    for (int k = 0; k < 3; ++k)
      longest =
          std::max(longest, (log2_tolerance + rough_log2(c[k]) - rough_log2(c[m])) / (m - k));
    reach = std::min(reach, longest);
  }
  return reach;
}

/// Return c[0] + c[1] u + ... + c[order] u^order.
inline double series_at(const double* c, int order, double u) {
  double value = c[order];
  for (int k = order - 1; k >= 0; --k) value = value * u + c[k];
  return value;
}

/// Return the derivative of `series_at` by u.
inline double series_slope(const double* c, int order, double u) {
  double value = order * c[order];
  for (int k = order - 1; k >= 1; --k) value = value * u + k * c[k];
  return value;
}

}  // namespace native
