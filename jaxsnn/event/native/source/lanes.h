// Vector form of cubalif.h: several neurons at once, one in each lane of a vector of doubles.

#pragma once

#include "cubalif.h"

namespace native {

constexpr int kDoubleLanes = kWidth<double>;

/// Selection of up to kDoubleLanes neurons of a tile: their lanes, and a bit for each of them.
/// Unused entries repeat the last lane.
struct LaneSelection {
  int lane[kDoubleLanes];
  unsigned mask;

  /// Select the lowest lanes of a bit mask and clear their bits in it.
  explicit LaneSelection(std::uint64_t& lanes) {
    int count = 0;
    for (; lanes && count < kDoubleLanes; lanes &= lanes - 1)
      lane[count++] = __builtin_ctzll(lanes);
    mask = (1u << count) - 1;
    for (int n = count; n < kDoubleLanes; ++n) lane[n] = lane[count - 1];
  }

  template <class T>
  __attribute__((always_inline)) DoubleVector gather(const T* array) const {
    const auto value = [&](int n) { return double(array[lane[n]]); };
    if constexpr (kDoubleLanes == 8)
      return DoubleVector{value(0), value(1), value(2), value(3),
                          value(4), value(5), value(6), value(7)};
    else if constexpr (kDoubleLanes == 4)
      return DoubleVector{value(0), value(1), value(2), value(3)};
    else
      return DoubleVector{value(0), value(1)};
  }

  /// Gather values that may be equal in all lanes of the tile, which saves reading them one by one.
  DoubleVector gather(const double* array, bool same_in_all) const {
    return same_in_all ? array[0] - DoubleVector{} : gather(array);
  }

  template <class T>
  void scatter(T* array, DoubleVector value) const {
    alignas(64) double values[kDoubleLanes];
    store<double>(values, value);
    // Unused entries repeat the last lane. Write backwards, so that the valid entry of that lane is
    // written last.
    for (int n = kDoubleLanes - 1; n >= 0; --n) array[lane[n]] = T(values[n]);
  }
};

/// With fewer neurons than this it is faster to process them one by one.
constexpr int kMinSelected = 2;

/// Mask in which all bits of a lane are set, or none.
typedef LongVector LaneMask;

inline LaneMask mask_of(unsigned bits) {
  LaneMask bit;
  for (int lane = 0; lane < kDoubleLanes; ++lane) bit[lane] = std::int64_t(1) << lane;
  return (bit & std::int64_t(bits)) != 0;
}

inline unsigned bits_of(LaneMask mask) {
  const DoubleVector zero = {}, one = zero + 1.0;
  return at_least(mask ? one : zero, one);
}

/// Round to the precision of the second argument's type.
inline DoubleVector rounded(DoubleVector value, float) {
  typedef float FloatLanes __attribute__((vector_size(kBytes / 2)));
  return __builtin_convertvector(__builtin_convertvector(value, FloatLanes), DoubleVector);
}

inline DoubleVector rounded(DoubleVector value, double) { return value; }

inline DoubleVector maximum(DoubleVector a, DoubleVector b) { return a > b ? a : b; }
inline DoubleVector minimum(DoubleVector a, DoubleVector b) { return a < b ? a : b; }
inline DoubleVector magnitude(DoubleVector a) { return a < 0.0 ? -a : a; }

inline DoubleVector square_root(DoubleVector a) {
  for (int lane = 0; lane < kDoubleLanes; ++lane) a[lane] = std::sqrt(a[lane]);
  return a;
}

/// `Flow` in each lane.
struct FlowLanes {
  DoubleVector em, es, k;
};

inline FlowLanes select(LaneMask mask, const FlowLanes& a, const FlowLanes& b) {
  return {mask ? a.em : b.em, mask ? a.es : b.es, mask ? a.k : b.k};
}

/// Compute the flow over times t >= 0.
inline FlowLanes flow_over(const TimeConstants& taus, DoubleVector t) {
  const DoubleVector zero = {}, slow_expm1 = expm1_lanes(-t * taus.slow);
  // tau_mem = 2 tau_syn: both exponentials are the same
  const DoubleVector gap_expm1 = taus.gap == taus.slow ? slow_expm1 : expm1_lanes(-t * taus.gap);
  const DoubleVector slower = 1.0 + slow_expm1, faster = slower + slower * gap_expm1;
  const DoubleVector ratio = gap_expm1 < zero ? -gap_expm1 / taus.gap : t;
  const DoubleVector k = slower * ratio * taus.gain;
  return taus.mem_longer ? FlowLanes{slower, faster, k} : FlowLanes{faster, slower, k};
}

/// Vector form of `remaining_flow` in cubalif.h.
inline FlowLanes remaining_flow(const FlowLanes& total, const FlowLanes& elapsed) {
  const DoubleVector em = total.em / elapsed.em, per_es = 1.0 / elapsed.es;
  return {em, total.es * per_es, (total.k - em * elapsed.k) * per_es};
}

/// Return -log(x) for x = 1 - y, where x and y are both positive and exact to the last digits, as 2
/// artanh((1 - x) / (1 + x)). Away from 1 the power of 2 is split off first, so that the series
/// converges quickly.
inline DoubleVector minus_log(DoubleVector x, DoubleVector y) {
  const LaneMask near = y < 0.25;
  LongVector bits;
  std::memcpy(&bits, &x, sizeof(bits));
  // x = m 2^e with m in [sqrt(1/2), sqrt(2))
  const std::int64_t kRoot = 0x3fe6a09e667f3bcd, kLow = (std::int64_t(1) << 52) - 1;
  const LongVector shifted = bits - kRoot, exponent = shifted >> 52;
  bits = (shifted & kLow) + kRoot;
  DoubleVector m;
  std::memcpy(&m, &bits, sizeof(m));
  const DoubleVector numerator = near ? y : 1.0 - m, denominator = near ? 2.0 - y : 1.0 + m;
  const DoubleVector zero = {},
                     power = near ? zero : __builtin_convertvector(exponent, DoubleVector);
  const DoubleVector s = numerator / denominator, z = s * s, z2 = z * z, z4 = z2 * z2;
  const DoubleVector low = (1. / 3 + z * (1. / 5)) + z2 * (1. / 7 + z * (1. / 9));
  const DoubleVector high = (1. / 11 + z * (1. / 13)) + z2 * (1. / 15 + z * (1. / 17));
  const DoubleVector top = 1. / 19 + z * (1. / 21);
  const DoubleVector log = 2.0 * s + 2.0 * s * z * (low + z4 * (high + z4 * top));
  return log - power * 1.90821492927058770002e-10 - power * 6.93147180369123816490e-01;
}

/// `Root` in each lane.
struct RootLanes {
  DoubleVector x, y, time;
};

/// Vector form of `quadratic` in cubalif.h.
inline RootLanes quadratic(DoubleVector a, DoubleVector b, DoubleVector rise,
                           DoubleVector threshold, DoubleVector gap) {
  const DoubleVector zero = {}, one = zero + 1.0;
  const DoubleVector a_squared = a * a, term_x = 4.0 * b * threshold, rise_squared = rise * rise,
                     term_y = 4.0 * b * gap;
  const LaneMask use_x = a_squared + magnitude(term_x) < rise_squared + magnitude(term_y);
  const DoubleVector root =
      square_root(maximum(use_x ? a_squared + term_x : rise_squared + term_y, zero));
  const DoubleVector twice = -2.0 * b;
  const auto safe_quotient = [&](DoubleVector numerator, DoubleVector denominator) {
    return numerator / (denominator == 0.0 ? one : denominator);
  };
  const LaneMask rises = rise > 0.0, positive = a > 0.0;
  DoubleVector y = safe_quotient(rises ? 2.0 * gap : rise - root, rises ? rise + root : twice);
  y = maximum(y, zero);
  DoubleVector x =
      safe_quotient(positive ? a + root : -2.0 * threshold, positive ? twice : root - a);
  x = minimum(maximum(x, zero + std::numeric_limits<double>::min()), one);
  const LaneMask near = y < 0.25;
  x = near ? 1.0 - y : x;
  y = near ? y : 1.0 - x;
  return {x, y, minus_log(x, y)};
}

/// Combine `has_peak` and `peak_reaches` for tau_mem = 2 tau_syn.
inline LaneMask peak_reaches_double(const TimeConstants& taus, DoubleVector v, DoubleVector j,
                                    DoubleVector v_end, DoubleVector j_end, DoubleVector threshold,
                                    double tiny) {
  const DoubleVector v_plus_j = v + j;
  return (j > v) & (j > 0.0) & (j_end - v_end <= tiny * (magnitude(v) + magnitude(j))) &
         (j * taus.syn + (taus.mem - taus.syn) * v > 0.0) &
         (v_plus_j * v_plus_j - 4.0 * j * threshold >= 0.0);
}

/// Result of `find_crossing_double`: the `Crossing` in each lane.
struct CrossingLanes {
  DoubleVector wait;
  FlowLanes flow;
};

inline CrossingLanes find_crossing_double(const TimeConstants& taus, unsigned selected,
                                          DoubleVector v, DoubleVector j, DoubleVector threshold,
                                          DoubleVector duration) {
  const DoubleVector zero = {}, one = zero + 1.0;
  const RootLanes root = quadratic(v + j, -j, j - v, threshold, threshold - v);
  DoubleVector wait = taus.mem * root.time;
  FlowLanes flow{root.x, root.x * root.x, root.x * root.y};
  const LaneMask inside = (wait >= zero) & (wait <= duration);
  if (selected & ~bits_of(inside)) {
    wait = inside ? wait : minimum(maximum(wait, zero), duration);
    flow = select(inside, flow, flow_over(taus, wait));
  }
  const LaneMask at_threshold = v >= threshold;
  return {at_threshold ? zero : wait, select(at_threshold, {one, one, zero}, flow)};
}

}  // namespace native
