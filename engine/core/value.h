// Values: what flows between steps, as the core holds it in memory.
#ifndef FLUX_ENGINE_CORE_VALUE_H_
#define FLUX_ENGINE_CORE_VALUE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "flux/v1/payload.pb.h"

namespace flux::engine {

// A stretch of a payload's bytes.
struct Slice {
  uint32_t offset = 0;
  uint32_t size = 0;
};

// Lists nest at most this deep: a loop that wraps its state in a list each turn must not grow
// without end, and whatever walks a value may then recurse.
inline constexpr uint32_t kListDepthMax = 32;

// A split of an item of a split… keeps the outermost payload alive; beyond this many the item's
// bytes are copied.
inline constexpr uint32_t kSplitDepthMax = 16;

// Payloads of at most this many bytes with nothing but data and encoding are held in one compact
// allocation.
inline constexpr size_t kCompactBytesMax = 1024;

// An immutable value, shared by counting: a handle of 16 bytes.
//
// It is one of: nothing (the default: an empty optional, or the output of a step that gives none);
// a payload; a list of values (what maps and joins make; it becomes a PayloadList payload only when
// somebody takes it); a split payload (a list payload or JSON array with the place of each item);
// an item of a split payload. Thread-safe as shared_ptr is: handles may be copied across threads,
// one handle belongs to one.
class Value {
 public:
  enum class Kind : uint8_t { kNone, kPayload, kList, kSplit, kItem };
  // Whom a payload is kept by besides the state, so that a snapshot names it instead of writing it.
  enum class Origin : uint8_t { kState, kLiteral, kInput };

  Value() = default;
  Value(const Value& other) : rep_(other.rep_), index_(other.index_) {
    if (rep_ != nullptr) rep_->refs.fetch_add(1, std::memory_order_relaxed);
  }
  Value(Value&& other) noexcept : rep_(other.rep_), index_(other.index_) { other.rep_ = nullptr; }
  Value& operator=(const Value& other) {
    Value copy(other);
    std::swap(rep_, copy.rep_);
    index_ = copy.index_;
    return *this;
  }
  Value& operator=(Value&& other) noexcept {
    if (this != &other) {
      Release();
      rep_ = other.rep_;
      index_ = other.index_;
      other.rep_ = nullptr;
    }
    return *this;
  }
  ~Value() { Release(); }

  // Takes the payload over. An ENCODING_NONE payload is nothing. `blob` != 0: it lies under that
  // ordinal on disk.
  static Value FromPayload(v1::Payload payload, uint64_t blob = 0);
  static Value CopyOf(const v1::Payload& payload);
  // Refers to a payload that somebody else keeps: literal or input number `id`.
  static Value Referring(std::shared_ptr<const v1::Payload> payload, Origin origin, uint32_t id,
                         uint64_t blob = 0);
  static Value FromData(std::string_view data, v1::Encoding encoding);
  // ResourceExhausted: nests deeper than kListDepthMax.
  static absl::StatusOr<Value> List(std::vector<Value> items);
  // Splits a payload or an item: an ENCODING_LIST or JSON array. A list is its own split.
  // InvalidArgument: neither, or malformed.
  static absl::StatusOr<Value> Split(const Value& payload);

  Kind kind() const;
  bool none() const { return rep_ == nullptr; }
  bool is_list() const { return kind() == Kind::kList; }

  // Of kList and kSplit.
  size_t items() const;
  Value Item(size_t index) const;
  // Of kList.
  const std::vector<Value>& list() const;
  // Of kSplit: what was split. Of kItem: the split it is an item of, as a value.
  const Value& base() const;
  Value whole() const;
  // Of kItem.
  uint32_t index() const { return index_; }
  // Of kPayload.
  uint64_t blob() const;
  Origin origin() const;
  uint32_t origin_id() const;

  // The payload, copied; a list is made into an ENCODING_LIST payload, nothing into an
  // ENCODING_NONE one.
  v1::Payload ToPayload() const;
  void AppendTo(v1::Payload* payload) const;
  // Its bytes without a copy where that is possible, else in `scratch`. Lists are made into a
  // payload.
  struct View {
    std::string_view data;
    v1::Encoding encoding = v1::ENCODING_NONE;
  };
  View Look(v1::Payload* scratch) const;

  // Bytes of data when made into a payload; of an item of a list, with its frame. O(1).
  size_t data_bytes() const;
  // As PayloadBytes counts that payload: to be held against a limit before it is made. O(metadata).
  size_t limit_bytes() const;
  // Bytes of memory it keeps alive, counted once a holder. O(1).
  size_t memory_bytes() const;

  // True if this handle is the only one of what it holds.
  bool unshared() const {
    return rep_ == nullptr || rep_->refs.load(std::memory_order_acquire) == 1;
  }
  // Tells shared values apart; only ever compared.
  const void* identity() const { return rep_; }

 private:
  static constexpr uint32_t kWhole = UINT32_MAX;

  enum class RepKind : uint8_t { kCompact, kPayload, kList, kSplit };
  struct Rep {
    explicit Rep(RepKind k) : kind(k) {}
    std::atomic<uint32_t> refs{1};
    RepKind kind;
    uint8_t encoding = 0;  // kCompact
    uint16_t depth = 0;    // kList: lists within; kSplit: splits it is an item within
    uint32_t size = 0;     // kCompact: bytes behind the header
  };
  // Of the payload as a message.
  size_t message_bytes() const;

  struct PayloadRep;
  struct ListRep;
  struct SplitRep;

  explicit Value(Rep* rep, uint32_t index = kWhole) : rep_(rep), index_(index) {}
  void Release() {
    if (rep_ != nullptr && rep_->refs.fetch_sub(1, std::memory_order_acq_rel) == 1) Destroy(rep_);
    rep_ = nullptr;
  }
  static void Destroy(Rep* rep);
  // Nothing but data and encoding, and not much of it.
  static bool IsCompact(const v1::Payload& payload);
  static const char* CompactData(const Rep* rep) {
    return reinterpret_cast<const char*>(rep) + sizeof(Rep);
  }

  Rep* rep_ = nullptr;
  uint32_t index_ = kWhole;
};

}  // namespace flux::engine

#endif  // FLUX_ENGINE_CORE_VALUE_H_
