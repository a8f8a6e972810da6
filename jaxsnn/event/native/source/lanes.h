// The current-based neuron, several at a time: what cubalif.h does one by one.

#pragma once

#include "cubalif.h"

namespace native {

constexpr int kSeveral = kWidth<double>;

/// Several neurons of a tile: the place of each in it, the last one's where there are fewer, and
/// a bit for each that there is.
struct Several {
  int lane[kSeveral];
  unsigned all;

  /// The first ones of some, which are taken from them.
  explicit Several(std::uint64_t& of) {
    int count = 0;
    for (; of && count < kSeveral; of &= of - 1) lane[count++] = __builtin_ctzll(of);
    all = (1u << count) - 1;
    for (int n = count; n < kSeveral; ++n) lane[n] = lane[count - 1];
  }

  template <class T>
  __attribute__((always_inline)) DoubleVector of(const T* numbers) const {
    const auto at = [&](int n) { return double(numbers[lane[n]]); };
    if constexpr (kSeveral == 8)
      return DoubleVector{at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7)};
    else if constexpr (kSeveral == 4)
      return DoubleVector{at(0), at(1), at(2), at(3)};
    else
      return DoubleVector{at(0), at(1)};
  }

  /// The same, of numbers that may be `alike` in all lanes of the tile.
  DoubleVector of(const double* numbers, bool alike) const {
    return alike ? numbers[0] - DoubleVector{} : of(numbers);
  }

  template <class T>
  void put_back(T* numbers, DoubleVector value) const {
    alignas(64) double found[kSeveral];
    store<double>(found, value);
    // of a lane that is there several times, what its first one says is what stays
    for (int n = kSeveral - 1; n >= 0; --n) numbers[lane[n]] = T(found[n]);
  }
};

/// Fewer neurons than this are settled one by one.
constexpr int kMany = 2;

/// All bits of a lane are set, or none.
typedef LongVector LaneMask;

inline LaneMask mask_of(unsigned bits) {
  LaneMask bit;
  for (int lane = 0; lane < kSeveral; ++lane) bit[lane] = std::int64_t(1) << lane;
  return (bit & std::int64_t(bits)) != 0;
}

inline unsigned bits_of(LaneMask mask) {
  const DoubleVector zero = {}, one = zero + 1.0;
  return at_least(mask ? one : zero, one);
}

/// As a T has them.
inline DoubleVector rounded(DoubleVector value, float) {
  typedef float Half __attribute__((vector_size(kBytes / 2)));
  return __builtin_convertvector(__builtin_convertvector(value, Half), DoubleVector);
}

inline DoubleVector rounded(DoubleVector value, double) { return value; }

inline DoubleVector larger(DoubleVector a, DoubleVector b) { return a > b ? a : b; }
inline DoubleVector smaller(DoubleVector a, DoubleVector b) { return a < b ? a : b; }
inline DoubleVector size_of(DoubleVector a) { return a < 0.0 ? -a : a; }

inline DoubleVector root_of(DoubleVector a) {
  for (int lane = 0; lane < kSeveral; ++lane) a[lane] = std::sqrt(a[lane]);
  return a;
}

/// As `Flow`, in all lanes.
struct FlowOfLanes {
  DoubleVector em, es, k;
};

inline FlowOfLanes pick(LaneMask mask, const FlowOfLanes& a, const FlowOfLanes& b) {
  return {mask ? a.em : b.em, mask ? a.es : b.es, mask ? a.k : b.k};
}

/// Over times of at least 0.
inline FlowOfLanes decay(const Taus& taus, DoubleVector t) {
  const DoubleVector zero = {}, fallen = expm1_lanes(-t * taus.slow);
  // tau_mem = 2 tau_syn: the same again
  const DoubleVector bend = taus.gap == taus.slow ? fallen : expm1_lanes(-t * taus.gap);
  const DoubleVector slower = 1.0 + fallen, faster = slower + slower * bend;
  const DoubleVector ratio = bend < zero ? -bend / taus.gap : t;
  const DoubleVector k = slower * ratio * taus.gain;
  return taus.mem_longer ? FlowOfLanes{slower, faster, k} : FlowOfLanes{faster, slower, k};
}

/// As the other `rest_of`.
inline FlowOfLanes rest_of(const FlowOfLanes& whole, const FlowOfLanes& part) {
  const DoubleVector em = whole.em / part.em, to_es = 1.0 / part.es;
  return {em, whole.es * to_es, (whole.k - em * part.k) * to_es};
}

/// -log(1 - y) of x = 1 - y, both positive and each exact to the last digits: 2 artanh((1 - x) / (1 + x))
/// of an x near 1, whose power of 2 is taken out before.
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
  const DoubleVector up = near ? y : 1.0 - m, down = near ? 2.0 - y : 1.0 + m;
  const DoubleVector zero = {}, power = near ? zero : __builtin_convertvector(exponent, DoubleVector);
  const DoubleVector s = up / down, z = s * s, z2 = z * z, z4 = z2 * z2;
  const DoubleVector low = (1. / 3 + z * (1. / 5)) + z2 * (1. / 7 + z * (1. / 9));
  const DoubleVector high = (1. / 11 + z * (1. / 13)) + z2 * (1. / 15 + z * (1. / 17));
  const DoubleVector top = 1. / 19 + z * (1. / 21);
  const DoubleVector log = 2.0 * s + 2.0 * s * z * (low + z4 * (high + z4 * top));
  return log - power * 1.90821492927058770002e-10 - power * 6.93147180369123816490e-01;
}

/// As `Root`, in all lanes.
struct RootOfLanes {
  DoubleVector x, y, time;
};

/// As the other `quadratic`.
inline RootOfLanes quadratic(DoubleVector a, DoubleVector b, DoubleVector rise,
                             DoubleVector threshold, DoubleVector gap) {
  const DoubleVector zero = {}, one = zero + 1.0;
  const DoubleVector a2 = a * a, to_x = 4.0 * b * threshold, rise2 = rise * rise,
                     to_y = 4.0 * b * gap;
  const LaneMask by_x = a2 + size_of(to_x) < rise2 + size_of(to_y);
  const DoubleVector root = root_of(larger(by_x ? a2 + to_x : rise2 + to_y, zero));
  const DoubleVector twice = -2.0 * b;
  const auto quotient = [&](DoubleVector up, DoubleVector down) {
    return up / (down == 0.0 ? one : down);
  };
  const LaneMask rises = rise > 0.0, positive = a > 0.0;
  DoubleVector y = quotient(rises ? 2.0 * gap : rise - root, rises ? rise + root : twice);
  y = larger(y, zero);
  DoubleVector x = quotient(positive ? a + root : -2.0 * threshold, positive ? twice : root - a);
  x = smaller(larger(x, zero + std::numeric_limits<double>::min()), one);
  const LaneMask near = y < 0.25;
  x = near ? 1.0 - y : x;
  y = near ? y : 1.0 - x;
  return {x, y, minus_log(x, y)};
}

/// As `peaks` and `peak_reaches`, of tau_mem = 2 tau_syn.
inline LaneMask peak_reaches_double(const Taus& taus, DoubleVector v, DoubleVector j,
                                    DoubleVector v_end, DoubleVector j_end, DoubleVector threshold,
                                    double tiny) {
  const DoubleVector both = v + j;
  return (j > v) & (j > 0.0) & (j_end - v_end <= tiny * (size_of(v) + size_of(j))) &
         (j * taus.syn + (taus.mem - taus.syn) * v > 0.0) & (both * both - 4.0 * j * threshold >= 0.0);
}

/// As `solve`, of tau_mem = 2 tau_syn, for `who` of several; at once where v is at the threshold already.
struct CrossingOfLanes {
  DoubleVector wait;
  FlowOfLanes flow;
};

inline CrossingOfLanes solve_double(const Taus& taus, unsigned who, DoubleVector v, DoubleVector j,
                                    DoubleVector threshold, DoubleVector duration) {
  const DoubleVector zero = {}, one = zero + 1.0;
  const RootOfLanes root = quadratic(v + j, -j, j - v, threshold, threshold - v);
  DoubleVector wait = taus.mem * root.time;
  FlowOfLanes flow{root.x, root.x * root.x, root.x * root.y};
  const LaneMask inside = (wait >= zero) & (wait <= duration);
  if (who & ~bits_of(inside)) {
    wait = inside ? wait : smaller(larger(wait, zero), duration);
    flow = pick(inside, flow, decay(taus, wait));
  }
  const LaneMask at_once = v >= threshold;
  return {at_once ? zero : wait, pick(at_once, {one, one, zero}, flow)};
}

}  // namespace native
