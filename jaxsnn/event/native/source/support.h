// Infrastructure that all kernels share: SIMD vectors, aligned memory, a thread pool, exponentials,
// and sorting of events by time.
//
// Vectors use the compiler's vector extensions at the width of the machine; some compilers split
// wider vectors into scalars. These extensions cannot turn a comparison into a bit mask, so
// `at_least` uses intrinsics or a plain loop.

#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <stdexcept>
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
/// Maximum number of vectors in a tile, limited by the number of vector registers.
#if defined(__SSE2__)
constexpr int kMaxVectors = 4;
#else
constexpr int kMaxVectors = 8;
#endif

typedef float FloatVector __attribute__((vector_size(kBytes)));
typedef double DoubleVector __attribute__((vector_size(kBytes)));
typedef std::int32_t IntVector __attribute__((vector_size(kBytes)));
typedef std::int64_t LongVector __attribute__((vector_size(kBytes)));

template <class T>
using Vector = std::conditional_t<std::is_same_v<T, float>, FloatVector, DoubleVector>;
/// Integer vector with lanes of the same size; also the type of a comparison's result.
template <class T>
using IntegerVector = std::conditional_t<sizeof(T) == 4, IntVector, LongVector>;

template <class T>
constexpr int kWidth = kBytes / sizeof(T);

/// Return a bit mask of the lanes in which a >= b.
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

/// Set one lane; a lane number outside the vector changes nothing.
template <class T>
inline void set_lane(Vector<T>& to, int lane, T value) {
  IntegerVector<T> lane_numbers;
  for (int n = 0; n < kWidth<T>; ++n) lane_numbers[n] = n;
  to = lane_numbers == std::int32_t(lane) ? value - Vector<T>{} : to;
}

/// Return a vector that holds the value in every lane.
template <class T>
inline Vector<T> broadcast(T value) {
  return value - Vector<T>{};
}

/// Sum the lanes in a fixed order, by adding the upper half to the lower half repeatedly.
template <class T, int kCount, class Operand>
inline T fold_sum(Operand operand) {
  if constexpr (kCount == 2) {
    return operand[0] + operand[1];
  } else {
    typedef T HalfVector __attribute__((vector_size(kCount / 2 * sizeof(T))));
    HalfVector halves[2];
    std::memcpy(halves, &operand, sizeof(operand));
    return fold_sum<T, kCount / 2>(HalfVector(halves[0] + halves[1]));
  }
}

inline float horizontal_sum(FloatVector a) { return fold_sum<float, kWidth<float>>(a); }
inline double horizontal_sum(DoubleVector a) { return fold_sum<double, kWidth<double>>(a); }

// ---- memory

/// Array aligned to 64 bytes; elements are not initialised unless a value is passed.
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

/// Request huge pages for a large array before it is written. Every first access to a page costs a
/// page fault, and there are 512 times as many small pages. Without huge pages this does nothing.
inline void prefer_large_pages(void* data, Index bytes) {
#ifdef MADV_HUGEPAGE
  constexpr std::uintptr_t kPageBytes = std::uintptr_t(1) << 21;
  const auto data_begin = reinterpret_cast<std::uintptr_t>(data), data_end = data_begin + bytes;
  const std::uintptr_t first_page = (data_begin + kPageBytes - 1) / kPageBytes * kPageBytes,
                       last_page = data_end / kPageBytes * kPageBytes;
  if (first_page < last_page)
    madvise(reinterpret_cast<void*>(first_page), last_page - first_page, MADV_HUGEPAGE);
#endif
}

// ---- threads

/// Thread pool that runs one job at a time. A second job, from another thread, runs serially in its
/// caller.
class ThreadPool {
 public:
  /// Call work(n) for n = 0 ... units - 1, in any order, on up to `threads` threads.
  template <class Work>
  void run(Index units, Index threads, Work&& work) {
    threads = std::min<Index>(threads, units);
    const auto run_serially = [&] {
      for (Index n = 0; n < units; ++n) work(n);
    };
    // With one thread return before locking: a unit of work may itself call run() with one thread,
    // while its job holds the lock.
    if (threads <= 1) return run_serially();
    std::unique_lock<std::mutex> job_lock(busy_, std::try_to_lock);
    if (!job_lock.owns_lock()) return run_serially();
    grow(threads - 1);
    Job job;
    job.units = units;
    job.work = [&work](Index n) { work(n); };
    {
      std::lock_guard<std::mutex> lock(mutex_);
      job_ = &job;
      helpers_needed_ = threads - 1;
      ++job_number_;
    }
    if (sleeping_ > 0) work_available_.notify_all();
    work_on(job);
    std::unique_lock<std::mutex> lock(mutex_);
    helpers_needed_ = 0;  // helpers that have not started yet are no longer needed
    if (active_ > 0) {
      lock.unlock();
      spin_until([this] { return active_ == 0; });
      lock.lock();
    }
    done_.wait(lock, [this] { return active_ == 0; });
    job_ = nullptr;
    if (job.failure) std::rethrow_exception(job.failure);
  }

  /// Like run(), in blocks of units: very small units would contend for the counter.
  template <class Work>
  void run_batched(Index units, Index threads, Work&& work) {
    const Index block = std::max<Index>(1, units / (8 * threads));
    run((units + block - 1) / block, threads, [&](Index block_number) {
      for (Index n = block_number * block; n < std::min(units, (block_number + 1) * block); ++n)
        work(n);
    });
  }

  /// Wake the threads ahead of a job that starts in a few microseconds, about as long as waking
  /// takes.
  void wake(Index threads) {
    if (threads <= 1 || sleeping_ == 0) return;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      ++wake_calls_;
    }
    work_available_.notify_all();
  }

  /// Return how many threads pay off: waking threads costs as much as some thousand operations.
  static Index useful_threads(Index threads, Index operations) {
    return operations < 20000 ? 1 : threads;
  }

  static ThreadPool& shared() {
    // Threads do not survive a fork, so a child process creates its own pool. Pools are never
    // destroyed because their threads may still be waiting when the process ends.
    static std::atomic<ThreadPool*> pool{nullptr};
    static std::atomic<int> owner{0};
    static std::mutex creation_mutex;
    ThreadPool* existing = pool.load();
    if (existing && owner.load() == int(getpid())) return *existing;
    std::lock_guard<std::mutex> lock(creation_mutex);
    if (!pool.load() || owner.load() != int(getpid())) {
      pool = new ThreadPool;
      owner = int(getpid());
    }
    return *pool.load();
  }

 private:
  struct Job {
    Index units = 0;
    std::function<void(Index)> work;
    std::atomic<bool> stop{false};
    std::exception_ptr failure;
    std::mutex failure_mutex;
    alignas(64) std::atomic<Index> next{0};  // on its own cache line: all threads write it
  };

  static void work_on(Job& job) {
    for (Index n; !job.stop && (n = job.next.fetch_add(1)) < job.units;) {
      try {
        job.work(n);
      } catch (...) {
        std::lock_guard<std::mutex> lock(job.failure_mutex);
        if (!job.failure) job.failure = std::current_exception();
        job.stop = true;
      }
    }
  }

  void grow(Index count) {
    while (Index(threads_.size()) < count) threads_.emplace_back([this] { serve(); }).detach();
  }

  void serve() {
    std::uint64_t last_job = 0, last_wake_call = 0;
    std::unique_lock<std::mutex> lock(mutex_, std::defer_lock);
    for (;;) {
      const auto has_new_job = [&] { return job_number_ != last_job && helpers_needed_ > 0; };
      spin_until(has_new_job);
      lock.lock();
      ++sleeping_;
      work_available_.wait(lock, [&] { return has_new_job() || wake_calls_ != last_wake_call; });
      --sleeping_;
      last_wake_call = wake_calls_;
      if (!has_new_job()) {
        lock.unlock();
        continue;
      }
      last_job = job_number_;
      --helpers_needed_;
      ++active_;
      Job& job = *job_;
      lock.unlock();
      work_on(job);
      lock.lock();
      if (--active_ == 0) done_.notify_all();
      lock.unlock();
    }
  }

  /// Spin for a short time before going to sleep: waking up often takes longer than the work.
  template <class Predicate>
  static void spin_until(Predicate&& is_done) {
    const auto begin = std::chrono::steady_clock::now();
    do {
      for (int n = 0; n < 16; ++n) {
        if (is_done()) return;
        pause_processor();
      }
      std::this_thread::yield();  // a thread that has work may share this processor
    } while (std::chrono::steady_clock::now() - begin < std::chrono::microseconds(200));
  }

  /// Tell the processor that this is a spin loop, so that its sibling hardware thread can proceed.
  static void pause_processor() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }

  std::mutex busy_, mutex_;
  std::condition_variable work_available_, done_;
  std::vector<std::thread> threads_;
  Job* job_ = nullptr;
  // modified only under mutex_
  std::atomic<Index> helpers_needed_{0}, active_{0}, sleeping_{0};
  std::atomic<std::uint64_t> job_number_{0};
  std::uint64_t wake_calls_ = 0;
};

// ---- exponentials

/// Return (e^r - 1) / r for |r| <= log(2) / 2 in double precision: the Taylor series sum r^n / (n +
/// 1)!, n = 0 ... 12. Terms are combined in pairs, and pairs of pairs, to shorten the chain of
/// dependent operations.
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

/// Values of e^x and e^x - 1.
struct Exponential {
  double value, expm1;
};

/// Compute both for x <= 0, accurate to the last digits: reduce x by a multiple of log 2, then sum
/// a Taylor series.
inline Exponential exponential(double x) {
  x = x < -708.0 ? -708.0 : x;
  // Adding 1.5 * 2^52 rounds a double to an integer and leaves that integer in the low bits.
  const double magic = 6755399441055744.0;
  const double shifted = x * 1.4426950408889634 + magic, exponent = shifted - magic;
  double r = x - exponent * 6.93147180369123816490e-01;
  r = r - exponent * 1.90821492927058770002e-10;
  const double p = r * phi1_series(r);
  std::uint64_t bits;
  std::memcpy(&bits, &shifted, sizeof(bits));
  bits = (bits << 52) + (std::uint64_t(1023) << 52);
  double power;  // 2^exponent
  std::memcpy(&power, &bits, sizeof(power));
  return {power * p + power, power * p + (power - 1.0)};
}

/// Compute e^x - 1 in all lanes with the same algorithm.
inline DoubleVector expm1_lanes(DoubleVector x) {
  const DoubleVector lower_limit = DoubleVector{} - 708.0;
  x = x < lower_limit ? lower_limit : x;
  const double magic = 6755399441055744.0;
  DoubleVector shifted = x * 1.4426950408889634 + magic;
  DoubleVector exponent = shifted - magic;
  DoubleVector r = x - exponent * 6.93147180369123816490e-01;
  r = r - exponent * 1.90821492927058770002e-10;
  const DoubleVector p = r * phi1_series(r);
  LongVector bits;
  std::memcpy(&bits, &shifted, sizeof(bits));
  bits = (bits << 52) + (std::int64_t(1023) << 52);
  DoubleVector power;  // 2^exponent
  std::memcpy(&power, &bits, sizeof(power));
  return power * p + (power - 1.0);
}

/// Compute e^x - 1 in single precision.
inline FloatVector expm1_lanes(FloatVector x) {
  const FloatVector lower_limit = FloatVector{} - 87.0f;
  x = x < lower_limit ? lower_limit : x;
  const float magic = 12582912.0f;  // 1.5 * 2^23
  FloatVector shifted = x * 1.44269504f + magic;
  FloatVector exponent = shifted - magic;
  FloatVector r = x - exponent * 0.693145752f;
  r = r - exponent * 1.42860677e-6f;
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

// ---- sorting events by time

/// Map a time to an unsigned integer with the same order.
inline std::uint32_t sort_key(float time) {
  std::uint32_t bits;
  time += 0.0f;  // makes -0 equal to 0
  std::memcpy(&bits, &time, sizeof(bits));
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

inline std::uint64_t sort_key(double time) {
  std::uint64_t bits;
  time += 0.0;
  std::memcpy(&bits, &time, sizeof(bits));
  return bits >> 63 ? ~bits : bits | std::uint64_t(1) << 63;
}

/// Return the time that a key encodes.
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

  Entry() {}  // leaves the members uninitialised
  Entry(Key key, std::int32_t slot) : key(key), slot(slot) {}
};

/// Collect the entries of times before `end` in slot order, without a branch that could be
/// mispredicted. `on_rest(position, slot)` is called for every slot; `position` counts the earlier
/// slots that are not collected, so the last call for a position is the slot that belongs there.
template <class T, class OnRest>
void partition_entries(const T* times, Index count, T end, std::vector<Entry<T>>& order,
                       OnRest&& on_rest) {
  order.resize(count);
  Entry<T>* const entries = order.data();
  Index count_before_end = 0;
  for (Index n = 0; n < count; ++n) {
    entries[count_before_end] = {sort_key(times[n]), std::int32_t(n)};
    on_rest(n - count_before_end, std::int32_t(n));
    count_before_end += times[n] < end;
  }
  order.resize(count_before_end);
}

/// Radix sort from the lowest digit; every pass is stable.
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
    std::uint32_t* digit_count = &count[std::size_t(pass) << kDigit];
    const int shift = pass * kDigit;
    // Skip a digit that is the same in all entries.
    if (digit_count[(order[0].key >> shift) & kMask] == order.size()) continue;
    std::uint32_t first = 0;
    for (unsigned digit = 0; digit <= kMask; ++digit) {
      std::uint32_t occurrences = digit_count[digit];
      digit_count[digit] = first;
      first += occurrences;
    }
    for (const auto& entry : order) spare[digit_count[(entry.key >> shift) & kMask]++] = entry;
    order.swap(spare);
  }
}

/// Lists shorter than this (a multiple of the block size) are sorted by rank.
constexpr Index kMaxRanked = 192;

/// Scale times to 15-bit integers in the same order; different times may become equal.
template <class T>
void coarse_times(const std::vector<Entry<T>>& order, std::int16_t coarse[kMaxRanked]) {
  using V = Vector<T>;
  using Integer = std::make_signed_t<typename Entry<T>::Key>;
  alignas(64) T times[kMaxRanked];
  alignas(64) Integer scaled[kMaxRanked];
  const Index count = order.size(), padded = (count + kWidth<T> - 1) / kWidth<T> * kWidth<T>;
  for (Index n = 0; n < count; ++n) times[n] = time_of(order[n].key);
  std::fill(times + count, times + padded, times[0]);
  V min_lanes = load<T>(times), max_lanes = min_lanes;
  for (Index n = kWidth<T>; n < padded; n += kWidth<T>) {
    const V chunk = load<T>(times + n);
    min_lanes = chunk < min_lanes ? chunk : min_lanes;
    max_lanes = chunk > max_lanes ? chunk : max_lanes;
  }
  T min_time = min_lanes[0], max_time = max_lanes[0];
  for (int lane = 1; lane < kWidth<T>; ++lane) {
    min_time = std::min(min_time, min_lanes[lane]);
    max_time = std::max(max_time, max_lanes[lane]);
  }
  const T range = max_time - min_time;
  if (!(range > 32768 * std::numeric_limits<T>::min() && range <= std::numeric_limits<T>::max())) {
    std::fill_n(coarse, count, std::int16_t(0));
    return;
  }
  const T scale = 32766 / range;
  for (Index n = 0; n < padded; n += kWidth<T>) {
    const auto integers =
        __builtin_convertvector((load<T>(times + n) - min_time) * scale, IntegerVector<T>);
    std::memcpy(scaled + n, &integers, sizeof(integers));
  }
  for (Index n = 0; n < count; ++n) coarse[n] = std::int16_t(scaled[n]);
}

/// Insertion sort, for very short or nearly sorted lists.
template <class T, class Less>
void sort_by_insertion(std::vector<Entry<T>>& order, const Less& less) {
  for (Index n = 1; n < Index(order.size()); ++n) {
    const Entry<T> entry = order[n];
    Index position = n;
    for (; position > 0 && less(entry, order[position - 1]); --position)
      order[position] = order[position - 1];
    order[position] = entry;
  }
}

/// Sort a short list by counting, for each entry, how many precede it. Counting uses the coarse
/// times and works on blocks of entries in SIMD lanes; entries with equal coarse times are sorted
/// afterwards.
template <class T, class Less>
void sort_by_rank(std::vector<Entry<T>>& order, std::vector<Entry<T>>& spare, const Less& less) {
  typedef std::int16_t Lanes __attribute__((vector_size(kBytes < 32 ? 16 : 32)));
  constexpr Index kBlock = 64, kVectors = kBlock * sizeof(std::int16_t) / sizeof(Lanes);
  static_assert(kMaxRanked % kBlock == 0);
  const Index count = order.size();
  alignas(64) std::int16_t coarse[kMaxRanked], rank[kMaxRanked];
  coarse_times(order, coarse);
  for (Index first = 0; first < count; first += kBlock) {
    Lanes block_times[kVectors], earlier[kVectors] = {};
    std::memcpy(block_times, coarse + first, sizeof(block_times));
    for (Index n = 0; n < count; ++n)
      for (Index q = 0; q < kVectors; ++q) earlier[q] -= coarse[n] < block_times[q];
    std::memcpy(rank + first, earlier, sizeof(earlier));
  }
  spare.resize(count);
  std::uint8_t ties[kMaxRanked] = {};  // entries already placed at each rank
  for (Index n = 0; n < count; ++n) spare[rank[n] + ties[rank[n]]++] = order[n];
  sort_by_insertion(spare, less);
  order.swap(spare);
}

/// Sort entries by time, equal times by slot. `spare` is a buffer of the same size.
template <class T>
void sort_entries(std::vector<Entry<T>>& order, std::vector<Entry<T>>& spare) {
  auto less = [](const Entry<T>& a, const Entry<T>& b) {
    return a.key < b.key || (a.key == b.key && a.slot < b.slot);
  };
  if (order.size() < 12) return sort_by_insertion(order, less);
  if (std::is_sorted(order.begin(), order.end(), less)) return;
  if (Index(order.size()) < kMaxRanked) return sort_by_rank(order, spare, less);
  order.size() < 4096 ? sort_by_digits<8>(order, spare) : sort_by_digits<11>(order, spare);
}

/// Interleave the lanes of two vectors: `first` receives the lower halves, `second` the upper
/// halves.
template <class T>
inline void interleave(Vector<T> a, Vector<T> b, Vector<T>& first, Vector<T>& second) {
  constexpr int kHalf = kWidth<T> / 2;
#if defined(__clang__)
  if constexpr (kHalf == 8) {
    first = __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    second =
        __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
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
  IntegerVector<T> first_lanes, second_lanes;
  for (int n = 0; n < kHalf; ++n) {
    first_lanes[2 * n] = n;
    first_lanes[2 * n + 1] = kWidth<T> + n;
    second_lanes[2 * n] = kHalf + n;
    second_lanes[2 * n + 1] = kWidth<T> + kHalf + n;
  }
  first = __builtin_shuffle(a, b, first_lanes);
  second = __builtin_shuffle(a, b, second_lanes);
#endif
}

/// Transpose a square matrix of kWidth vectors: log2(kWidth) times, interleave row n with row
/// n + kWidth / 2.
template <class T>
inline void transpose_square(Vector<T> square[kWidth<T>]) {
  constexpr Index kHalf = kWidth<T> / 2;
  for (Index remaining = kWidth<T>; remaining > 1; remaining /= 2) {
    Vector<T> next[kWidth<T>];
    for (Index n = 0; n < kHalf; ++n)
      interleave<T>(square[n], square[n + kHalf], next[2 * n], next[2 * n + 1]);
    std::memcpy(square, next, sizeof(next));
  }
}

/// Transpose a matrix (rows, columns) to (columns, rows) by squares, so that each cache line is
/// read and written once.
///
/// `stride`: distance between rows of the result; `scale`: factor for each row of the input, null
/// for 1.
template <class T>
void transpose(const T* from, Index rows, Index columns, Index threads, T* to, Index stride,
               const T* scale = nullptr) {
  constexpr Index kSide = kWidth<T>;
  // Transposing eight numbers takes about as long as one operation of `useful_threads`.
  threads = ThreadPool::useful_threads(threads, rows * columns / 8);
  ThreadPool::shared().run((columns + kSide - 1) / kSide, threads, [&](Index band) {
    const Index column = band * kSide, width = std::min(kSide, columns - column);
    for (Index row = 0; row < rows; row += kSide) {
      const Index height = std::min(kSide, rows - row);
      const T* source = from + row * columns + column;
      T* target = to + column * stride + row;
      const auto factor = [&](Index r) { return scale ? scale[row + r] : T(1); };
      if (height == kSide && width == kSide) {
        Vector<T> square[kSide];
        for (Index r = 0; r < kSide; ++r) square[r] = load<T>(source + r * columns) * factor(r);
        transpose_square<T>(square);
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
