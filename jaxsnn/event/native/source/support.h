// What all kernels need: vectors, memory, threads, exponentials, and events in the order of time.
//
// Vectors are the compiler's own, as long as the machine's: longer ones some compilers take apart into
// single numbers. The one thing that they do not say is which lanes satisfy a condition, for which there
// are intrinsics and a plain loop.

#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <sys/mman.h>
#include <unistd.h>

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace native {

using Index = std::int64_t;

// ---- vectors

#if defined(__AVX512F__)
constexpr int kBytes = 64;
#elif defined(__AVX__)
constexpr int kBytes = 32;
#else
constexpr int kBytes = 16;
#endif
/// Vectors that are worked on at once, as far as there are registers for them.
#if defined(__SSE2__)
constexpr int kMostVectors = 4;
#else
constexpr int kMostVectors = 8;
#endif

typedef float FloatVector __attribute__((vector_size(kBytes)));
typedef double DoubleVector __attribute__((vector_size(kBytes)));
typedef std::int32_t IntVector __attribute__((vector_size(kBytes)));
typedef std::int64_t LongVector __attribute__((vector_size(kBytes)));

template <class T>
using Vector = std::conditional_t<std::is_same_v<T, float>, FloatVector, DoubleVector>;
/// Whole numbers of the same size, and what comparing vectors gives.
template <class T>
using WholeVector = std::conditional_t<sizeof(T) == 4, IntVector, LongVector>;

template <class T>
constexpr int kWidth = kBytes / sizeof(T);

/// One bit for each lane in which a >= b.
inline unsigned at_least(FloatVector a, FloatVector b) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GE_OQ);
#elif defined(__AVX__)
  return _mm256_movemask_ps(_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_GE_OQ));
#elif defined(__SSE2__)
  return _mm_movemask_ps(_mm_cmpge_ps((__m128)a, (__m128)b));
#elif defined(__aarch64__)
  const uint32x4_t bit = {1, 2, 4, 8};
  return vaddvq_u32(vandq_u32(vcgeq_f32((float32x4_t)a, (float32x4_t)b), bit));
#else
  unsigned bits = 0;
  for (int lane = 0; lane < kWidth<float>; ++lane) bits |= unsigned(a[lane] >= b[lane]) << lane;
  return bits;
#endif
}

inline unsigned at_least(DoubleVector a, DoubleVector b) {
#if defined(__AVX512F__)
  return _mm512_cmp_pd_mask((__m512d)a, (__m512d)b, _CMP_GE_OQ);
#elif defined(__AVX__)
  return _mm256_movemask_pd(_mm256_cmp_pd((__m256d)a, (__m256d)b, _CMP_GE_OQ));
#elif defined(__SSE2__)
  return _mm_movemask_pd(_mm_cmpge_pd((__m128d)a, (__m128d)b));
#elif defined(__aarch64__)
  const uint64x2_t bit = {1, 2};
  return unsigned(vaddvq_u64(vandq_u64(vcgeq_f64((float64x2_t)a, (float64x2_t)b), bit)));
#else
  unsigned bits = 0;
  for (int lane = 0; lane < kWidth<double>; ++lane) bits |= unsigned(a[lane] >= b[lane]) << lane;
  return bits;
#endif
}

template <class T>
inline Vector<T> load(const T* from) {
  Vector<T> value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

template <class T>
inline void store(T* to, Vector<T> value) {
  std::memcpy(to, &value, sizeof(value));
}

/// A number into a lane, if there is one of that number.
template <class T>
inline void put(Vector<T>& to, int lane, T value) {
  WholeVector<T> numbers;
  for (int n = 0; n < kWidth<T>; ++n) numbers[n] = n;
  to = numbers == std::int32_t(lane) ? value - Vector<T>{} : to;
}

/// A number in all lanes.
template <class T>
inline Vector<T> spread(T value) {
  return value - Vector<T>{};
}

/// The sum of a vector's numbers in a fixed order: halves onto each other.
template <class T, int kSize, class Numbers>
inline T folded(Numbers numbers) {
  if constexpr (kSize == 2) {
    return numbers[0] + numbers[1];
  } else {
    typedef T Half __attribute__((vector_size(kSize / 2 * sizeof(T))));
    Half half[2];
    std::memcpy(half, &numbers, sizeof(numbers));
    return folded<T, kSize / 2>(Half(half[0] + half[1]));
  }
}

inline float sum_of(FloatVector a) { return folded<float, kWidth<float>>(a); }
inline double sum_of(DoubleVector a) { return folded<double, kWidth<double>>(a); }

// ---- memory

/// Numbers on a boundary of 64 bytes, not initialised.
template <class T>
class Array {
 public:
  Array() = default;
  explicit Array(Index size) : size_(size) {
    if (size < 0 || std::size_t(size) > std::numeric_limits<std::size_t>::max() / 2 / sizeof(T))
      throw std::bad_alloc();
    data_.reset(static_cast<T*>(
        ::operator new(std::max<std::size_t>(std::size_t(size) * sizeof(T), 64), kBoundary)));
  }
  Array(Index size, T value) : Array(size) { std::fill_n(data_.get(), size, value); }
  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  T& operator[](Index n) { return data_.get()[n]; }
  const T& operator[](Index n) const { return data_.get()[n]; }
  Index size() const { return size_; }

 private:
  static constexpr std::align_val_t kBoundary{64};
  struct Free {
    void operator()(T* data) const { ::operator delete(data, kBoundary); }
  };
  std::unique_ptr<T, Free> data_;
  Index size_ = 0;
};

/// Asks for large pages for a large array that is about to be written: each page that is new costs a
/// fault, and of small ones there are 512 times as many. Where there are none nothing happens.
inline void prefer_large_pages(void* data, Index bytes) {
#ifdef MADV_HUGEPAGE
  constexpr std::uintptr_t kPage = std::uintptr_t(1) << 21;
  const auto begin = reinterpret_cast<std::uintptr_t>(data), end = begin + bytes;
  const std::uintptr_t first = (begin + kPage - 1) / kPage * kPage, last = end / kPage * kPage;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

// ---- threads

/// Threads that wait for work. One job at a time: a second one, from another thread, runs by itself.
class Pool {
 public:
  /// Calls work(n) for n in 0 ... units - 1, in any order, by up to `threads` threads.
  template <class Work>
  void run(Index units, Index threads, Work&& work) {
    threads = std::min<Index>(threads, units);
    const auto by_itself = [&] {
      for (Index n = 0; n < units; ++n) work(n);
    };
    // what one thread does may be a part of a job, whose lock it holds
    if (threads <= 1) return by_itself();
    std::unique_lock<std::mutex> alone(busy_, std::try_to_lock);
    if (!alone.owns_lock()) return by_itself();
    grow(threads - 1);
    Job job;
    job.units = units;
    job.work = [&work](Index n) { work(n); };
    {
      std::lock_guard<std::mutex> lock(mutex_);
      job_ = &job;
      wanted_ = threads - 1;
      ++round_;
    }
    if (asleep_ > 0) wake_.notify_all();
    take(job);
    std::unique_lock<std::mutex> lock(mutex_);
    wanted_ = 0;  // who has not come yet need not
    if (active_ > 0) {
      lock.unlock();
      soon([this] { return active_ == 0; });
      lock.lock();
    }
    done_.wait(lock, [this] { return active_ == 0; });
    job_ = nullptr;
    if (job.failed) std::rethrow_exception(job.failed);
  }

  /// The same, of units so small that threads would wait for each other at each: some at a time.
  template <class Work>
  void run_small(Index units, Index threads, Work&& work) {
    const Index some = std::max<Index>(1, units / (8 * threads));
    run((units + some - 1) / some, threads, [&](Index part) {
      for (Index n = part * some; n < std::min(units, (part + 1) * some); ++n) work(n);
    });
  }

  /// Wakes threads that will have work in some microseconds: as long as waking takes.
  void rouse(Index threads) {
    if (threads <= 1 || asleep_ == 0) return;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      ++roused_;
    }
    wake_.notify_all();
  }

  /// Threads for going through so many numbers: waking takes as long as some thousands of them.
  static Index worth(Index threads, Index numbers) { return numbers < 20000 ? 1 : threads; }

  static Pool& shared() {
    // Threads do not outlive a fork: the child begins with a pool of its own. Never destroyed, as
    // its threads may wait when the process ends.
    static std::atomic<Pool*> pool{nullptr};
    static std::atomic<int> owner{0};
    static std::mutex making;
    Pool* found = pool.load();
    if (found && owner.load() == int(getpid())) return *found;
    std::lock_guard<std::mutex> lock(making);
    if (!pool.load() || owner.load() != int(getpid())) {
      pool = new Pool;
      owner = int(getpid());
    }
    return *pool.load();
  }

 private:
  struct Job {
    Index units = 0;
    std::function<void(Index)> work;
    std::atomic<bool> stop{false};
    std::exception_ptr failed;
    std::mutex failing;
    alignas(64) std::atomic<Index> next{0};  // written all the time
  };

  static void take(Job& job) {
    for (Index n; !job.stop && (n = job.next.fetch_add(1)) < job.units;) {
      try {
        job.work(n);
      } catch (...) {
        std::lock_guard<std::mutex> lock(job.failing);
        if (!job.failed) job.failed = std::current_exception();
        job.stop = true;
      }
    }
  }

  void grow(Index count) {
    while (Index(threads_.size()) < count)
      threads_.emplace_back([this] { serve(); }).detach();
  }

  void serve() {
    std::uint64_t seen = 0, heard = 0;
    std::unique_lock<std::mutex> lock(mutex_, std::defer_lock);
    for (;;) {
      const auto called = [&] { return round_ != seen && wanted_ > 0; };
      soon(called);
      lock.lock();
      ++asleep_;
      wake_.wait(lock, [&] { return called() || roused_ != heard; });
      --asleep_;
      heard = roused_;
      if (!called()) {
        lock.unlock();
        continue;
      }
      seen = round_;
      --wanted_;
      ++active_;
      Job& job = *job_;
      lock.unlock();
      take(job);
      lock.lock();
      if (--active_ == 0) done_.notify_all();
      lock.unlock();
    }
  }

  /// Looks for some time whether a thread need not go to sleep: waking takes longer than what is to be
  /// done often does.
  template <class Condition>
  static void soon(Condition&& holds) {
    const auto begin = std::chrono::steady_clock::now();
    do {
      for (int n = 0; n < 16; ++n) {
        if (holds()) return;
        relax();
      }
      std::this_thread::yield();  // to who has the work, on the same processor
    } while (std::chrono::steady_clock::now() - begin < std::chrono::microseconds(200));
  }

  /// The processor's other half may go on.
  static void relax() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }

  std::mutex busy_, mutex_;
  std::condition_variable wake_, done_;
  std::vector<std::thread> threads_;
  Job* job_ = nullptr;
  // changed under the lock alone
  std::atomic<Index> wanted_{0}, active_{0}, asleep_{0};
  std::atomic<std::uint64_t> round_{0};
  std::uint64_t roused_ = 0;
};

// ---- exponentials

/// (e^r - 1) / r for |r| <= log(2) / 2, in double: the sum of r^n / (n + 1)!, n = 0 ... 12, in pairs,
/// and pairs of pairs, so that few of its steps wait for each other.
template <class Number>
inline Number phi1_series(Number r) {
  const Number r2 = r * r, r4 = r2 * r2;
  const Number a0 = 1.0 + r * (1.0 / 2), a1 = 1.0 / 6 + r * (1.0 / 24);
  const Number a2 = 1.0 / 120 + r * (1.0 / 720), a3 = 1.0 / 5040 + r * (1.0 / 40320);
  const Number a4 = 1.0 / 362880 + r * (1.0 / 3628800), a5 = 1.0 / 39916800 + r * (1.0 / 479001600);
  const Number low = (a0 + r2 * a1) + r4 * (a2 + r2 * a3);
  const Number high = (a4 + r2 * a5) + r4 * (1.0 / 6227020800);
  return low + (r4 * r4) * high;
}

/// e^x and e^x - 1.
struct Exponential {
  double value, fall;
};

/// For x <= 0, to the last digits: Taylor's series of what is left of x when whole multiples of
/// log 2 are taken out.
inline Exponential exponential(double x) {
  x = x < -708.0 ? -708.0 : x;
  // Added to 1.5 * 2^52 a number is rounded to a whole one, which stands in the low bits.
  const double magic = 6755399441055744.0;
  const double shifted = x * 1.4426950408889634 + magic, whole = shifted - magic;
  double r = x - whole * 6.93147180369123816490e-01;
  r = r - whole * 1.90821492927058770002e-10;
  const double p = r * phi1_series(r);
  std::uint64_t bits;
  std::memcpy(&bits, &shifted, sizeof(bits));
  bits = (bits << 52) + (std::uint64_t(1023) << 52);
  double power;  // 2^whole
  std::memcpy(&power, &bits, sizeof(power));
  return {power * p + power, power * p + (power - 1.0)};
}

/// e^x - 1 in all lanes, like this.
inline DoubleVector expm1_of(DoubleVector x) {
  const DoubleVector least = DoubleVector{} - 708.0;
  x = x < least ? least : x;
  const double magic = 6755399441055744.0;
  DoubleVector shifted = x * 1.4426950408889634 + magic;
  DoubleVector whole = shifted - magic;
  DoubleVector r = x - whole * 6.93147180369123816490e-01;
  r = r - whole * 1.90821492927058770002e-10;
  const DoubleVector p = r * phi1_series(r);
  LongVector bits;
  std::memcpy(&bits, &shifted, sizeof(bits));
  bits = (bits << 52) + (std::int64_t(1023) << 52);
  DoubleVector power;  // 2^whole
  std::memcpy(&power, &bits, sizeof(power));
  return power * p + (power - 1.0);
}

/// The same of float.
inline FloatVector expm1_of(FloatVector x) {
  const FloatVector least = FloatVector{} - 87.0f;
  x = x < least ? least : x;
  const float magic = 12582912.0f;  // 1.5 * 2^23
  FloatVector shifted = x * 1.44269504f + magic;
  FloatVector whole = shifted - magic;
  FloatVector r = x - whole * 0.693145752f;
  r = r - whole * 1.42860677e-6f;
  // sum of r^n / n!, n = 1 ... 8, in pairs
  const FloatVector r2 = r * r;
  FloatVector p = (1.0f + r * (1.0f / 2)) + r2 * (1.0f / 6 + r * (1.0f / 24));
  p += (r2 * r2) * ((1.0f / 120 + r * (1.0f / 720)) + r2 * (1.0f / 5040 + r * (1.0f / 40320)));
  p = r * p;
  IntVector bits;
  std::memcpy(&bits, &shifted, sizeof(bits));
  bits = (bits << 23) + (std::int32_t(127) << 23);
  FloatVector power;
  std::memcpy(&power, &bits, sizeof(power));
  return power * p + (power - 1.0f);
}

// ---- events in the order of time

/// A time as a number that sorts like it.
inline std::uint32_t sort_key(float time) {
  std::uint32_t bits;
  time += 0.0f;  // -0 is 0
  std::memcpy(&bits, &time, sizeof(bits));
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

inline std::uint64_t sort_key(double time) {
  std::uint64_t bits;
  time += 0.0;
  std::memcpy(&bits, &time, sizeof(bits));
  return bits >> 63 ? ~bits : bits | std::uint64_t(1) << 63;
}

/// The time of such a number.
inline float time_of(std::uint32_t key) {
  const std::uint32_t bits = key & 0x80000000u ? key ^ 0x80000000u : ~key;
  float time;
  std::memcpy(&time, &bits, sizeof(time));
  return time;
}

inline double time_of(std::uint64_t key) {
  const std::uint64_t sign = std::uint64_t(1) << 63, bits = key & sign ? key ^ sign : ~key;
  double time;
  std::memcpy(&time, &bits, sizeof(time));
  return time;
}

template <class T>
struct Entry {
  using Key = decltype(sort_key(T()));
  Key key;
  std::int32_t slot;

  Entry() {}  // of no value
  Entry(Key key, std::int32_t slot) : key(key), slot(slot) {}
};

/// Entries of the times before an end in the order of slots: without a branch to foresee. Each slot goes
/// to `other(place, slot)`, too, with the number of those before it that are none of them.
template <class T, class Other>
void part_entries(const T* times, Index count, T end, std::vector<Entry<T>>& order, Other&& other) {
  order.resize(count);
  Entry<T>* const before = order.data();
  Index found = 0;
  for (Index n = 0; n < count; ++n) {
    before[found] = {sort_key(times[n]), std::int32_t(n)};
    other(n - found, std::int32_t(n));
    found += times[n] < end;
  }
  order.resize(found);
}

/// Digit by digit from the lowest, each pass stable.
template <int kDigit, class T>
void sort_by_digits(std::vector<Entry<T>>& order, std::vector<Entry<T>>& spare) {
  constexpr int kPasses = (8 * sizeof(order[0].key) + kDigit - 1) / kDigit;
  std::vector<std::uint32_t> count(std::size_t(kPasses) << kDigit, 0);
  constexpr unsigned kMask = (1u << kDigit) - 1;
  for (const auto& entry : order)
    for (int pass = 0; pass < kPasses; ++pass)
      ++count[(std::size_t(pass) << kDigit) + ((entry.key >> (pass * kDigit)) & kMask)];
  spare.resize(order.size());
  for (int pass = 0; pass < kPasses; ++pass) {
    std::uint32_t* of_digit = &count[std::size_t(pass) << kDigit];
    const int shift = pass * kDigit;
    if (of_digit[(order[0].key >> shift) & kMask] == order.size()) continue;  // all the same
    std::uint32_t first = 0;
    for (unsigned digit = 0; digit <= kMask; ++digit) {
      std::uint32_t here = of_digit[digit];
      of_digit[digit] = first;
      first += here;
    }
    for (const auto& entry : order) spare[of_digit[(entry.key >> shift) & kMask]++] = entry;
    order.swap(spare);
  }
}

/// Fewer entries than this, which are whole blocks, are sorted by rank.
constexpr Index kRanked = 192;

/// Times as whole numbers of 15 bits in the same order, where different times may be the same.
template <class T>
void coarse_times(const std::vector<Entry<T>>& order, std::int16_t coarse[kRanked]) {
  using V = Vector<T>;
  using Whole = std::make_signed_t<typename Entry<T>::Key>;
  alignas(64) T times[kRanked];
  alignas(64) Whole numbers[kRanked];
  const Index count = order.size(), padded = (count + kWidth<T> - 1) / kWidth<T> * kWidth<T>;
  for (Index n = 0; n < count; ++n) times[n] = time_of(order[n].key);
  std::fill(times + count, times + padded, times[0]);
  V least = load<T>(times), most = least;
  for (Index n = kWidth<T>; n < padded; n += kWidth<T>) {
    const V here = load<T>(times + n);
    least = here < least ? here : least;
    most = here > most ? here : most;
  }
  T first = least[0], last = most[0];
  for (int lane = 1; lane < kWidth<T>; ++lane) {
    first = std::min(first, least[lane]);
    last = std::max(last, most[lane]);
  }
  const T range = last - first;
  if (!(range > 32768 * std::numeric_limits<T>::min() && range <= std::numeric_limits<T>::max())) {
    std::fill_n(coarse, count, std::int16_t(0));
    return;
  }
  const T scale = 32766 / range;
  for (Index n = 0; n < padded; n += kWidth<T>) {
    const auto whole = __builtin_convertvector((load<T>(times + n) - first) * scale, WholeVector<T>);
    std::memcpy(numbers + n, &whole, sizeof(whole));
  }
  for (Index n = 0; n < count; ++n) coarse[n] = std::int16_t(numbers[n]);
}

/// Entries that are nearly in order, or very few.
template <class T, class Less>
void sort_by_insertion(std::vector<Entry<T>>& order, const Less& less) {
  for (Index n = 1; n < Index(order.size()); ++n) {
    const Entry<T> entry = order[n];
    Index to = n;
    for (; to > 0 && less(entry, order[to - 1]); --to) order[to] = order[to - 1];
    order[to] = entry;
  }
}

/// Few entries: how many come before each is counted, entries next to each other at once, as far as
/// coarse times tell; then the few that these do not tell apart are put in order.
template <class T, class Less>
void sort_by_rank(std::vector<Entry<T>>& order, std::vector<Entry<T>>& spare, const Less& less) {
  typedef std::int16_t Lanes __attribute__((vector_size(kBytes < 32 ? 16 : 32)));
  constexpr Index kBlock = 64, kVectors = kBlock * sizeof(std::int16_t) / sizeof(Lanes);
  static_assert(kRanked % kBlock == 0);
  const Index count = order.size();
  alignas(64) std::int16_t coarse[kRanked], rank[kRanked];
  coarse_times(order, coarse);
  for (Index first = 0; first < count; first += kBlock) {
    Lanes own[kVectors], before[kVectors] = {};
    std::memcpy(own, coarse + first, sizeof(own));
    for (Index n = 0; n < count; ++n)
      for (Index q = 0; q < kVectors; ++q) before[q] -= coarse[n] < own[q];
    std::memcpy(rank + first, before, sizeof(before));
  }
  spare.resize(count);
  std::uint8_t placed[kRanked] = {};  // behind each rank
  for (Index n = 0; n < count; ++n) spare[rank[n] + placed[rank[n]]++] = order[n];
  sort_by_insertion(spare, less);
  order.swap(spare);
}

/// Slots in the order of their times, equal times in the order of slots: `order` holds the entries,
/// `spare` as much room.
template <class T>
void sort_entries(std::vector<Entry<T>>& order, std::vector<Entry<T>>& spare) {
  auto less = [](const Entry<T>& a, const Entry<T>& b) {
    return a.key < b.key || (a.key == b.key && a.slot < b.slot);
  };
  if (order.size() < 12) return sort_by_insertion(order, less);
  if (std::is_sorted(order.begin(), order.end(), less)) return;
  if (Index(order.size()) < kRanked) return sort_by_rank(order, spare, less);
  order.size() < 4096 ? sort_by_digits<8>(order, spare) : sort_by_digits<11>(order, spare);
}

/// The first halves of two vectors with their numbers by turns, and the second halves.
template <class T>
inline void interleave(Vector<T> a, Vector<T> b, Vector<T>& first, Vector<T>& second) {
  constexpr int kHalf = kWidth<T> / 2;
#if defined(__clang__)
  if constexpr (kHalf == 8) {
    first = __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    second = __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  } else if constexpr (kHalf == 4) {
    first = __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
    second = __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
  } else if constexpr (kHalf == 2) {
    first = __builtin_shufflevector(a, b, 0, 4, 1, 5);
    second = __builtin_shufflevector(a, b, 2, 6, 3, 7);
  } else {
    first = __builtin_shufflevector(a, b, 0, 2);
    second = __builtin_shufflevector(a, b, 1, 3);
  }
#else
  WholeVector<T> of_first, of_second;
  for (int n = 0; n < kHalf; ++n) {
    of_first[2 * n] = n;
    of_first[2 * n + 1] = kWidth<T> + n;
    of_second[2 * n] = kHalf + n;
    of_second[2 * n + 1] = kWidth<T> + kHalf + n;
  }
  first = __builtin_shuffle(a, b, of_first);
  second = __builtin_shuffle(a, b, of_second);
#endif
}

/// A square of as many vectors as they have lanes, turned: row n and the one half a square below it by
/// turns, as often as halves can be taken.
template <class T>
inline void turn_square(Vector<T> square[kWidth<T>]) {
  constexpr Index kHalf = kWidth<T> / 2;
  for (Index left = kWidth<T>; left > 1; left /= 2) {
    Vector<T> next[kWidth<T>];
    for (Index n = 0; n < kHalf; ++n)
      interleave<T>(square[n], square[n + kHalf], next[2 * n], next[2 * n + 1]);
    std::memcpy(square, next, sizeof(next));
  }
}

/// A matrix (rows, columns) as (columns, rows), square by square: each line of memory is read once,
/// and written once.
///
/// `stride`: numbers from one row of the result to the next; `scale`: of each row of the matrix a
/// factor; null: 1.
template <class T>
void turn(const T* from, Index rows, Index columns, Index threads, T* to, Index stride,
          const T* scale = nullptr) {
  constexpr Index kSide = kWidth<T>;
  // eight are turned as fast as others are computed
  threads = Pool::worth(threads, rows * columns / 8);
  Pool::shared().run((columns + kSide - 1) / kSide, threads, [&](Index band) {
    const Index column = band * kSide, width = std::min(kSide, columns - column);
    for (Index row = 0; row < rows; row += kSide) {
      const Index height = std::min(kSide, rows - row);
      const T* source = from + row * columns + column;
      T* target = to + column * stride + row;
      const auto factor = [&](Index r) { return scale ? scale[row + r] : T(1); };
      if (height == kSide && width == kSide) {
        Vector<T> square[kSide];
        for (Index r = 0; r < kSide; ++r) square[r] = load<T>(source + r * columns) * factor(r);
        turn_square<T>(square);
        for (Index c = 0; c < kSide; ++c) store<T>(target + c * stride, square[c]);
      } else {
        for (Index r = 0; r < height; ++r)
          for (Index c = 0; c < width; ++c)
            target[c * stride + r] = source[r * columns + c] * factor(r);
      }
    }
  });
}

}  // namespace native
