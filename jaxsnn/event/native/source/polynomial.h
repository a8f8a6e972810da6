// Search for the first root of a polynomial, which misses none: it relies on bounds of derivatives.

#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

namespace native {

/// A polynomial c[0] + c[1] u + ... and its first derivatives.
struct PolynomialValue {
  double u, value, slope, second;
};

class Polynomial {
 public:
  Polynomial(const double* coefficients, int degree) : c_(coefficients), degree_(degree) {
    for (int k = 2; k <= degree; ++k) {
      const double size = std::abs(c_[k]) * k * (k - 1);
      max_second_ += size;
      max_third_ += size * (k - 2);
      max_fourth_ += size * (k - 2) * std::max(k - 3, 0);
    }
  }

  PolynomialValue at(double u) const {
    double value = 0, slope = 0, half_second = 0;
    for (int k = degree_; k >= 0; --k) {
      half_second = half_second * u + slope;
      slope = slope * u + value;
      value = value * u + c_[k];
    }
    return {u, value, slope, 2 * half_second};
  }

  /// Return the first root in [0, 1], where the polynomial is negative at 0; -1 if there is none.
  /// An interval is halved until it has no root, or is monotone, by bounds on the derivatives.
  double first_root() const {
    if (!(max_fourth_ < std::numeric_limits<double>::max())) return -1;  // not finite
    double ends[64];
    int count = 0;
    ends[count++] = 1;
    for (PolynomialValue a = at(0); count > 0;) {
      const PolynomialValue b = at(ends[count - 1]);
      const double width = b.u - a.u, square = width * width / 8;
      const bool is_last = count >= 60 || width < 0x1p-50;
      if (std::max(a.value, b.value) + max_second_ * square < 0) {  // no root
        a = b;
        --count;
        continue;
      }
      const double slack = max_third_ * square, bend = max_fourth_ * square;
      const bool rises = std::min(a.slope, b.slope) - slack > 0;
      const bool falls = std::max(a.slope, b.slope) + slack < 0;
      const bool is_convex = std::min(a.second, b.second) - bend >= 0;
      const bool is_concave = std::max(a.second, b.second) + bend <= 0;
      PolynomialValue end = b;
      if (!rises && !falls && !is_convex && is_concave) {
        if (a.slope > 0 && b.slope < 0) end = peak(a, b);
      } else if (!(rises || falls || is_convex || is_last)) {
        ends[count++] = a.u + width / 2;
        continue;
      }
      if (end.value >= 0) return root(a, end);
      a = b;
      --count;
    }
    return -1;
  }

 private:
  /// Return the maximum of a concave part that has one inside.
  PolynomialValue peak(PolynomialValue a, PolynomialValue b) const {
    PolynomialValue middle = a;
    for (int n = 0; n < 100 && b.u - a.u > 0x1p-52; ++n) {
      const double newton = middle.second < 0 ? middle.u - middle.slope / middle.second : -1;
      const bool in_bracket = n % 4 < 3 && newton > a.u && newton < b.u;
      const double u = in_bracket ? newton : 0.5 * (a.u + b.u);
      if (u == middle.u) break;
      middle = at(u);
      (middle.slope > 0 ? a : b) = middle;
      if (middle.slope == 0) break;
    }
    return middle.value >= a.value ? (middle.value >= b.value ? middle : b)
                                   : (a.value >= b.value ? a : b);
  }

  /// Return the root in a part in which the polynomial rises once from below 0 to 0 or above.
  double root(PolynomialValue a, PolynomialValue b) const {
    double low = a.u, high = b.u;
    double u = a.value < b.value ? low + (high - low) * a.value / (a.value - b.value) : high;
    double previous = high - low;
    for (int n = 0; n < 100 && low < high; ++n) {
      const PolynomialValue here = at(u);
      (here.value < 0 ? low : high) = u;
      const double step = here.slope > 0 ? here.value / here.slope : 2;
      double next = u - step;
      if (!(next >= low && next <= high) || std::abs(step) > 0.5 * previous)
        next = 0.5 * (low + high);
      previous = std::abs(next - u);
      if (previous <= 0x1p-53 * u || high - low <= 0x1p-53 * high) return next;
      u = next;
    }
    return u;
  }

  const double* c_;
  int degree_;
  double max_second_ = 0, max_third_ = 0, max_fourth_ = 0;  // on [0, 1]
};

}  // namespace native
