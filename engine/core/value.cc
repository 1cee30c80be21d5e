#include "engine/core/value.h"

#include <cstring>
#include <limits>
#include <new>
#include <string>

#include "absl/strings/str_cat.h"
#include "engine/core/json_value.h"
#include "engine/core/payload_limit.h"
#include "google/protobuf/io/coded_stream.h"
#include "proto/bridge.h"

namespace flux::engine {

// What a payload message costs beside its bytes: the message, its string and the two control
// blocks.
static constexpr size_t kPayloadOverheadBytes = 192;

// A length-delimited field of a low number: tag, length, bytes.
static size_t FieldBytes(size_t bytes) {
  return 1 + google::protobuf::io::CodedOutputStream::VarintSize64(bytes) + bytes;
}

// `payload` is shared because several steps, and the execution's own start record, may hold the
// same bytes.
struct Value::PayloadRep : Value::Rep {
  PayloadRep() : Rep(RepKind::kPayload) {}
  std::shared_ptr<const v1::Payload> payload;
  uint64_t blob = 0;
  Origin origin = Origin::kState;
  uint32_t id = 0;
};

struct Value::ListRep : Value::Rep {
  ListRep() : Rep(RepKind::kList) {}
  std::vector<Value> items;
  size_t data_bytes = 0;
  size_t memory_bytes = 0;
};

struct Value::SplitRep : Value::Rep {
  SplitRep() : Rep(RepKind::kSplit) {}
  Value base;
  v1::Encoding encoding_of_base = v1::ENCODING_JSON;
  // Into the base's bytes. Item bytes are read through `bytes`, which points into the base, or into
  // `own` where the base is an item whose bytes had to be decoded.
  std::vector<Slice> slices;
  std::string own;
  std::string_view bytes;
};

void Value::Destroy(Rep* rep) {
  switch (rep->kind) {
    case RepKind::kCompact:
      rep->~Rep();
      ::operator delete(rep);
      return;
    case RepKind::kPayload:
      delete static_cast<PayloadRep*>(rep);
      return;
    case RepKind::kList:
      delete static_cast<ListRep*>(rep);
      return;
    case RepKind::kSplit:
      delete static_cast<SplitRep*>(rep);
      return;
  }
}

Value Value::FromData(std::string_view data, v1::Encoding encoding) {
  if (encoding == v1::ENCODING_NONE) return Value();
  if (data.size() > kCompactBytesMax) {
    v1::Payload payload;
    payload.set_data(std::string(data));
    payload.set_encoding(encoding);
    return FromPayload(std::move(payload));
  }
  void* memory = ::operator new(sizeof(Rep) + data.size());
  Rep* rep = new (memory) Rep(RepKind::kCompact);
  rep->encoding = static_cast<uint8_t>(encoding);
  rep->size = static_cast<uint32_t>(data.size());
  std::memcpy(static_cast<char*>(memory) + sizeof(Rep), data.data(), data.size());
  return Value(rep);
}

bool Value::IsCompact(const v1::Payload& payload) {
  return payload.data().size() <= kCompactBytesMax && payload.content_type().empty() &&
         payload.metadata().empty() && v1::Encoding_IsValid(payload.encoding());
}

Value Value::FromPayload(v1::Payload payload, uint64_t blob) {
  if (blob == 0) {
    if (payload.encoding() == v1::ENCODING_NONE) return Value();
    if (IsCompact(payload)) return FromData(payload.data(), payload.encoding());
  }
  auto* rep = new PayloadRep;
  rep->payload = std::make_shared<const v1::Payload>(std::move(payload));
  rep->blob = blob;
  return Value(rep);
}

Value Value::CopyOf(const v1::Payload& payload) {
  return IsCompact(payload) ? FromData(payload.data(), payload.encoding()) : FromPayload(payload);
}

Value Value::Referring(std::shared_ptr<const v1::Payload> payload, Origin origin, uint32_t id,
                       uint64_t blob) {
  auto* rep = new PayloadRep;
  rep->payload = std::move(payload);
  rep->origin = origin;
  rep->id = id;
  rep->blob = blob;
  return Value(rep);
}

absl::StatusOr<Value> Value::List(std::vector<Value> items) {
  // Held from the start, so that an early return frees it.
  auto* rep = new ListRep;
  Value list(rep);
  uint16_t depth = 0;
  rep->memory_bytes = sizeof(ListRep) + items.size() * sizeof(Value);
  for (const Value& item : items) {
    if (item.is_list()) depth = std::max(depth, item.rep_->depth);
    rep->data_bytes += FieldBytes(item.message_bytes());
    rep->memory_bytes += item.memory_bytes();
  }
  if (depth + 1u > kListDepthMax) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the list nests more than ", kListDepthMax,
                     " lists deep: carry a flat list, or let a task combine the values"));
  }
  rep->depth = static_cast<uint16_t>(depth + 1);
  rep->items = std::move(items);
  rep->items.shrink_to_fit();
  return list;
}

absl::StatusOr<Value> Value::Split(const Value& payload) {
  switch (payload.kind()) {
    case Kind::kList:
    case Kind::kSplit:
      return payload;
    case Kind::kNone:
      return List({});
    case Kind::kPayload:
    case Kind::kItem:
      break;
  }
  auto* rep = new SplitRep;
  Value split(rep);
  rep->base = payload;
  if (payload.kind() == Kind::kItem) {
    if (payload.rep_->depth >= kSplitDepthMax) {
      rep->base = FromPayload(payload.ToPayload());
    } else {
      rep->depth = static_cast<uint16_t>(payload.rep_->depth + 1);
    }
  }
  v1::Payload scratch;
  const View view = rep->base.Look(&scratch);
  if (view.data.data() == scratch.data().data()) {
    rep->own = std::move(*scratch.mutable_data());
    rep->bytes = rep->own;
  } else {
    rep->bytes = view.data;
  }
  rep->encoding_of_base = view.encoding;
  if (rep->bytes.size() > std::numeric_limits<uint32_t>::max()) {
    return absl::InvalidArgumentError("a list of more than 4 GiB cannot be split");
  }
  if (view.encoding == v1::ENCODING_LIST) {
    FLUX_ASSIGN_OR_RETURN(rep->slices, SplitPayloadList(rep->bytes));
  } else if (view.encoding == v1::ENCODING_JSON) {
    FLUX_ASSIGN_OR_RETURN(rep->slices, SplitJsonArray(rep->bytes));
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat("expected a list or a JSON array, got a payload of encoding ",
                     v1::Encoding_Name(view.encoding)));
  }
  rep->slices.shrink_to_fit();
  return split;
}

Value::Kind Value::kind() const {
  if (rep_ == nullptr) return Kind::kNone;
  switch (rep_->kind) {
    case RepKind::kCompact:
    case RepKind::kPayload:
      return Kind::kPayload;
    case RepKind::kList:
      return Kind::kList;
    case RepKind::kSplit:
      return index_ == kWhole ? Kind::kSplit : Kind::kItem;
  }
  return Kind::kNone;
}

size_t Value::items() const {
  if (rep_ == nullptr) return 0;
  if (rep_->kind == RepKind::kList) return static_cast<const ListRep*>(rep_)->items.size();
  if (rep_->kind == RepKind::kSplit) return static_cast<const SplitRep*>(rep_)->slices.size();
  return 0;
}

// Is it a payload of nothing, as lists carry it: one field, of one byte?
static bool IsNothing(std::string_view payload) {
  static_assert(v1::ENCODING_NONE < 0x80 && v1::Payload::kEncodingFieldNumber < 0x10);
  return payload.size() == 2 &&
         payload[0] == static_cast<char>(v1::Payload::kEncodingFieldNumber << 3) &&
         payload[1] == static_cast<char>(v1::ENCODING_NONE);
}

Value Value::Item(size_t index) const {
  if (rep_->kind == RepKind::kList) return static_cast<const ListRep*>(rep_)->items[index];
  const auto* split = static_cast<const SplitRep*>(rep_);
  const Slice slice = split->slices[index];
  if (split->encoding_of_base != v1::ENCODING_JSON &&
      IsNothing(split->bytes.substr(slice.offset, slice.size))) {
    return Value();
  }
  rep_->refs.fetch_add(1, std::memory_order_relaxed);
  return Value(rep_, static_cast<uint32_t>(index));
}

const std::vector<Value>& Value::list() const { return static_cast<const ListRep*>(rep_)->items; }

const Value& Value::base() const { return static_cast<const SplitRep*>(rep_)->base; }

Value Value::whole() const {
  rep_->refs.fetch_add(1, std::memory_order_relaxed);
  return Value(rep_);
}

uint64_t Value::blob() const {
  return rep_ != nullptr && rep_->kind == RepKind::kPayload
             ? static_cast<const PayloadRep*>(rep_)->blob
             : 0;
}

Value::Origin Value::origin() const {
  return rep_ != nullptr && rep_->kind == RepKind::kPayload
             ? static_cast<const PayloadRep*>(rep_)->origin
             : Origin::kState;
}

uint32_t Value::origin_id() const { return static_cast<const PayloadRep*>(rep_)->id; }

Value::View Value::Look(v1::Payload* scratch) const {
  if (rep_ == nullptr) return {};
  switch (rep_->kind) {
    case RepKind::kCompact:
      return {{CompactData(rep_), rep_->size}, static_cast<v1::Encoding>(rep_->encoding)};
    case RepKind::kPayload: {
      const v1::Payload& payload = *static_cast<const PayloadRep*>(rep_)->payload;
      return {payload.data(), payload.encoding()};
    }
    case RepKind::kSplit: {
      if (index_ == kWhole) return base().Look(scratch);
      const auto* split = static_cast<const SplitRep*>(rep_);
      const Slice slice = split->slices[index_];
      const std::string_view bytes = split->bytes.substr(slice.offset, slice.size);
      if (split->encoding_of_base == v1::ENCODING_JSON) return {bytes, v1::ENCODING_JSON};
      break;
    }
    case RepKind::kList:
      break;
  }
  scratch->Clear();
  AppendTo(scratch);
  return {scratch->data(), scratch->encoding()};
}

void Value::AppendTo(v1::Payload* payload) const {
  if (rep_ == nullptr) {
    payload->set_encoding(v1::ENCODING_NONE);
    return;
  }
  switch (rep_->kind) {
    case RepKind::kCompact:
      payload->set_data(CompactData(rep_), rep_->size);
      payload->set_encoding(static_cast<v1::Encoding>(rep_->encoding));
      return;
    case RepKind::kPayload:
      *payload = *static_cast<const PayloadRep*>(rep_)->payload;
      return;
    case RepKind::kList: {
      std::string* data = payload->mutable_data();
      data->clear();
      data->reserve(static_cast<const ListRep*>(rep_)->data_bytes);
      v1::Payload scratch;
      for (const Value& item : static_cast<const ListRep*>(rep_)->items) {
        scratch.Clear();
        item.AppendTo(&scratch);
        AppendField(v1::PayloadList::kItemsFieldNumber, scratch, data);
      }
      payload->set_encoding(v1::ENCODING_LIST);
      return;
    }
    case RepKind::kSplit: {
      if (index_ == kWhole) return base().AppendTo(payload);
      const auto* split = static_cast<const SplitRep*>(rep_);
      const Slice slice = split->slices[index_];
      const std::string_view bytes = split->bytes.substr(slice.offset, slice.size);
      if (split->encoding_of_base == v1::ENCODING_JSON) {
        payload->set_data(std::string(bytes));
        payload->set_encoding(v1::ENCODING_JSON);
      } else if (!payload->ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
        // Malformed inside an item: the reader is told what it is and refuses it.
        payload->Clear();
        payload->set_data(std::string(bytes));
        payload->set_encoding(v1::ENCODING_BYTES);
      }
      return;
    }
  }
}

v1::Payload Value::ToPayload() const {
  v1::Payload payload;
  AppendTo(&payload);
  return payload;
}

size_t Value::data_bytes() const {
  if (rep_ == nullptr) return 0;
  switch (rep_->kind) {
    case RepKind::kCompact:
      return rep_->size;
    case RepKind::kPayload:
      return static_cast<const PayloadRep*>(rep_)->payload->data().size();
    case RepKind::kList:
      return static_cast<const ListRep*>(rep_)->data_bytes;
    case RepKind::kSplit: {
      const auto* split = static_cast<const SplitRep*>(rep_);
      return index_ == kWhole ? split->bytes.size() : split->slices[index_].size;
    }
  }
  return 0;
}

size_t Value::limit_bytes() const {
  if (rep_ != nullptr && rep_->kind == RepKind::kPayload) {
    return PayloadBytes(*static_cast<const PayloadRep*>(rep_)->payload);
  }
  if (kind() == Kind::kSplit) return base().limit_bytes();
  return data_bytes();
}

size_t Value::message_bytes() const {
  if (rep_ != nullptr && rep_->kind == RepKind::kPayload) {
    return static_cast<const PayloadRep*>(rep_)->payload->ByteSizeLong();
  }
  if (kind() == Kind::kSplit) return base().message_bytes();
  if (kind() == Kind::kItem &&
      static_cast<const SplitRep*>(rep_)->encoding_of_base != v1::ENCODING_JSON) {
    return data_bytes();  // it lies there as a message
  }
  // Data and the encoding, one of the low ones, as far as there are any.
  const bool encoded = rep_ == nullptr || rep_->kind != RepKind::kCompact || rep_->encoding != 0;
  const size_t bytes = data_bytes();
  return (bytes == 0 ? 0 : FieldBytes(bytes)) + (encoded ? 2 : 0);
}

size_t Value::memory_bytes() const {
  if (rep_ == nullptr) return 0;
  switch (rep_->kind) {
    case RepKind::kCompact:
      // Two words of the allocator's.
      return sizeof(Rep) + rep_->size + 16;
    case RepKind::kPayload: {
      const auto* held = static_cast<const PayloadRep*>(rep_);
      // Literals and inputs are counted where they are kept.
      if (held->origin != Origin::kState) return sizeof(PayloadRep);
      return sizeof(PayloadRep) + kPayloadOverheadBytes + PayloadBytes(*held->payload);
    }
    case RepKind::kList:
      return static_cast<const ListRep*>(rep_)->memory_bytes;
    case RepKind::kSplit: {
      const auto* split = static_cast<const SplitRep*>(rep_);
      return index_ == kWhole ? sizeof(SplitRep) + split->slices.size() * sizeof(Slice) : 0;
    }
  }
  return 0;
}

}  // namespace flux::engine
