#include "engine/shard/batch.h"

#include <array>
#include <utility>

#include "flux/v1/record.pb.h"

namespace flux::engine {
namespace {

// Protobuf wire format (developers.google.com/protocol-buffers/docs/encoding): varints and
// length-delimited fields.
constexpr uint8_t Tag(uint32_t field, uint32_t wire_type) {
  return static_cast<uint8_t>(field << 3 | wire_type);
}
constexpr uint32_t kVarint = 0;
constexpr uint32_t kLengthDelimited = 2;

size_t VarintBytes(uint64_t v) {
  size_t bytes = 1;
  while (v >= 0x80) {
    v >>= 7;
    ++bytes;
  }
  return bytes;
}

void AppendVarint(std::string& out, uint64_t v) {
  while (v >= 0x80) {
    out += static_cast<char>(v | 0x80);
    v >>= 7;
  }
  out += static_cast<char>(v);
}

void AppendRun(std::string& out, const RunId& run) {
  out += static_cast<char>(Tag(v1::LogRecords::kRunIdFieldNumber, kLengthDelimited));
  out += static_cast<char>(16);
  std::array<char, 16> bytes;
  for (int i = 0; i < 8; ++i) {
    bytes[i] = static_cast<char>(run.high >> (56 - 8 * i));
    bytes[8 + i] = static_cast<char>(run.low >> (56 - 8 * i));
  }
  out.append(bytes.data(), bytes.size());
}

constexpr size_t kRunFieldBytes = 18;

}  // namespace

void BatchBuilder::Add(const RunId& run, uint64_t ordinal, std::string_view record) {
  const size_t inner =
      kRunFieldBytes + 1 + VarintBytes(ordinal) + 1 + VarintBytes(record.size()) + record.size();
  bytes_ += static_cast<char>(Tag(v1::LogBatch::kExecutionsFieldNumber, kLengthDelimited));
  AppendVarint(bytes_, inner);
  AppendRun(bytes_, run);
  bytes_ += static_cast<char>(Tag(v1::LogRecords::kFirstOrdinalFieldNumber, kVarint));
  AppendVarint(bytes_, ordinal);
  bytes_ += static_cast<char>(Tag(v1::LogRecords::kRecordsFieldNumber, kLengthDelimited));
  AppendVarint(bytes_, record.size());
  bytes_ += record;
}

void BatchBuilder::AddBlob(const RunId& run, uint64_t ordinal, uint64_t bytes) {
  v1::LogRecords records;
  records.set_run_id(run.Bytes());
  v1::Blob* blob = records.add_blobs();
  blob->set_ordinal(ordinal);
  blob->set_bytes(bytes);
  bytes_ += static_cast<char>(Tag(v1::LogBatch::kExecutionsFieldNumber, kLengthDelimited));
  AppendVarint(bytes_, records.ByteSizeLong());
  records.AppendToString(&bytes_);
}

}  // namespace flux::engine
