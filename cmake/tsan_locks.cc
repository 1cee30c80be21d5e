// Locks of abseil, as the thread sanitizer wants to know of them.
//
// Debian's abseil and gRPC are built without it. They order their threads by absl::Mutex, which is
// made of atomics and futexes that nobody has instrumented: whatever one thread of gRPC hands to
// the next then looks like a race. These functions stand before the library's own (the program is
// linked with this file's library first), call those, and tell the sanitizer of the order they
// make. For programs built with -fsanitize=thread alone.
#include <dlfcn.h>

#include <cstdint>

// gcc.gnu.org/git: libsanitizer/include/sanitizer/tsan_interface.h
extern "C" {
void __tsan_acquire(void* address);
void __tsan_release(void* address);
}

namespace {

template <typename Function>
Function Next(const char* name) {
  return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

// As absl::Duration and absl::Time are passed: by value, in two registers.
struct Span {
  int64_t seconds;
  uint32_t ticks;
};

using OnMutex = void (*)(void*);
using TryMutex = bool (*)(void*);
using Wait = void (*)(void*, void*);
using WaitUntil = bool (*)(void*, void*, Span);

}  // namespace

// NOLINTBEGIN: the names are those of the mangled functions.
extern "C" {

void _ZN4absl7debian35Mutex4LockEv(void* mutex) {
  static const auto next = Next<OnMutex>("_ZN4absl7debian35Mutex4LockEv");
  next(mutex);
  __tsan_acquire(mutex);
}

void _ZN4absl7debian35Mutex6UnlockEv(void* mutex) {
  static const auto next = Next<OnMutex>("_ZN4absl7debian35Mutex6UnlockEv");
  __tsan_release(mutex);
  next(mutex);
}

void _ZN4absl7debian35Mutex10ReaderLockEv(void* mutex) {
  static const auto next = Next<OnMutex>("_ZN4absl7debian35Mutex10ReaderLockEv");
  next(mutex);
  __tsan_acquire(mutex);
}

void _ZN4absl7debian35Mutex12ReaderUnlockEv(void* mutex) {
  static const auto next = Next<OnMutex>("_ZN4absl7debian35Mutex12ReaderUnlockEv");
  __tsan_release(mutex);
  next(mutex);
}

bool _ZN4absl7debian35Mutex7TryLockEv(void* mutex) {
  static const auto next = Next<TryMutex>("_ZN4absl7debian35Mutex7TryLockEv");
  const bool locked = next(mutex);
  if (locked) __tsan_acquire(mutex);
  return locked;
}

void _ZN4absl7debian37CondVar4WaitEPNS0_5MutexE(void* condition, void* mutex) {
  static const auto next = Next<Wait>("_ZN4absl7debian37CondVar4WaitEPNS0_5MutexE");
  __tsan_release(mutex);
  next(condition, mutex);
  __tsan_acquire(mutex);
}

bool _ZN4absl7debian37CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE(void* condition,
                                                                          void* mutex,
                                                                          Span timeout) {
  static const auto next =
      Next<WaitUntil>("_ZN4absl7debian37CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE");
  __tsan_release(mutex);
  const bool expired = next(condition, mutex, timeout);
  __tsan_acquire(mutex);
  return expired;
}

bool _ZN4absl7debian37CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE(void* condition, void* mutex,
                                                                       Span deadline) {
  static const auto next =
      Next<WaitUntil>("_ZN4absl7debian37CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE");
  __tsan_release(mutex);
  const bool expired = next(condition, mutex, deadline);
  __tsan_acquire(mutex);
  return expired;
}

}  // extern "C"
// NOLINTEND
