#include "engine/shard/keys.h"

#include <xxhash.h>

namespace flux::engine::keys {
namespace {

constexpr size_t kHeadBytes = 3;  // shard and table
constexpr size_t kRunBytes = 16;
constexpr size_t kPlaceBytes = 1 + 8 + kRunBytes;  // status, ~start, ~run

void AppendU64(std::string& out, uint64_t v) {
  for (int shift = 56; shift >= 0; shift -= 8) out += static_cast<char>(v >> shift);
}

uint64_t ReadU64(std::string_view bytes) {
  uint64_t v = 0;
  for (size_t i = 0; i < 8; ++i) v = v << 8 | static_cast<uint8_t>(bytes[i]);
  return v;
}

void AppendRun(std::string& out, const RunId& run) {
  AppendU64(out, run.high);
  AppendU64(out, run.low);
}

void AppendRunReversed(std::string& out, const RunId& run) {
  AppendU64(out, ~run.high);
  AppendU64(out, ~run.low);
}

std::string Head(store::ShardId shard, Table table) {
  std::string out;
  out.reserve(64);
  out += static_cast<char>(shard >> 8);
  out += static_cast<char>(shard);
  out += static_cast<char>(table);
  return out;
}

std::string WithRun(store::ShardId shard, Table table, const RunId& run) {
  std::string out = Head(shard, table);
  AppendRun(out, run);
  return out;
}

void AppendId(std::string& out, std::string_view id) {
  out += id;
  out += '\0';
}

// The parts of a schedule lie side by side, the definition first.
std::string SchedulePart(std::string_view ns, std::string_view id, char part) {
  std::string out = Head(0, Table::kSchedule);
  AppendId(out, ns);
  AppendId(out, id);
  out += part;
  return out;
}

}  // namespace

std::string PrefixEnd(std::string prefix) {
  while (!prefix.empty() && static_cast<uint8_t>(prefix.back()) == 0xff) prefix.pop_back();
  if (!prefix.empty()) prefix.back() = static_cast<char>(static_cast<uint8_t>(prefix.back()) + 1);
  return prefix;
}

std::pair<std::string, std::string> TableRange(store::ShardId shard, Table table) {
  std::string begin = Head(shard, table);
  std::string end = PrefixEnd(begin);
  return {std::move(begin), std::move(end)};
}

std::string Active(store::ShardId shard, const RunId& run) {
  return WithRun(shard, Table::kActive, run);
}

std::string Deleted(store::ShardId shard, int64_t delete_ms, const RunId& run) {
  std::string out = Head(shard, Table::kDeleted);
  AppendU64(out, ~static_cast<uint64_t>(delete_ms));
  AppendRunReversed(out, run);
  return out;
}

std::string DeletedBefore(store::ShardId shard, int64_t delete_ms) {
  std::string out = Head(shard, Table::kDeleted);
  AppendU64(out, ~static_cast<uint64_t>(delete_ms - 1));
  return out;
}

std::optional<std::pair<int64_t, RunId>> DeletionOf(std::string_view key) {
  if (key.size() != kHeadBytes + 8 + kRunBytes) return std::nullopt;
  key.remove_prefix(kHeadBytes);
  return std::pair(static_cast<int64_t>(~ReadU64(key)),
                   RunId{~ReadU64(key.substr(8)), ~ReadU64(key.substr(16))});
}

std::string Bulk(std::string_view id) { return Head(0, Table::kBulk).append(id); }

std::string CurrentPrefix(store::ShardId shard, std::string_view ns, std::string_view workflow_id) {
  std::string out = Head(shard, Table::kCurrent);
  AppendId(out, ns);
  AppendId(out, workflow_id);
  return out;
}

std::string Current(store::ShardId shard, std::string_view ns, std::string_view workflow_id,
                    const RunId& run) {
  std::string out = CurrentPrefix(shard, ns, workflow_id);
  AppendRunReversed(out, run);
  return out;
}

std::string Definition(std::string_view hash) { return Head(0, Table::kDefinition).append(hash); }

std::string NamePrefix(std::string_view name) {
  std::string out = Head(0, Table::kName);
  AppendId(out, name);
  return out;
}

std::string Name(std::string_view name, uint64_t sequence) {
  std::string out = NamePrefix(name);
  AppendU64(out, ~sequence);
  return out;
}

std::string HistoryPrefix(store::ShardId shard, const RunId& run) {
  return WithRun(shard, Table::kHistory, run);
}

std::string History(store::ShardId shard, const RunId& run, uint64_t first_ordinal) {
  std::string out = HistoryPrefix(shard, run);
  AppendU64(out, first_ordinal);
  return out;
}

std::string ScheduleDefinition(std::string_view ns, std::string_view id) {
  return SchedulePart(ns, id, 'D');
}

std::string ScheduleState(std::string_view ns, std::string_view id) {
  return SchedulePart(ns, id, 'S');
}

std::string Session(std::string_view session_id) {
  return Head(0, Table::kSession).append(session_id);
}

std::string PayloadPrefix(store::ShardId shard, const RunId& run) {
  return WithRun(shard, Table::kPayload, run);
}

std::string Payload(store::ShardId shard, const RunId& run, uint64_t ordinal) {
  std::string out = PayloadPrefix(shard, run);
  AppendU64(out, ordinal);
  return out;
}

std::string ReadyPrefix(store::ShardId shard, std::string_view queue) {
  std::string out = Head(shard, Table::kReady);
  AppendId(out, queue);
  return out;
}

std::string Ready(store::ShardId shard, std::string_view queue, int64_t since_ms,
                  const RunId& run) {
  std::string out = ReadyPrefix(shard, queue);
  AppendU64(out, static_cast<uint64_t>(since_ms));
  AppendRun(out, run);
  return out;
}

std::string RequestPrefix(store::ShardId shard, std::string_view ns, std::string_view workflow_id) {
  std::string out = Head(shard, Table::kRequest);
  AppendId(out, ns);
  AppendId(out, workflow_id);
  return out;
}

std::string Request(store::ShardId shard, std::string_view ns, std::string_view workflow_id,
                    std::string_view request_id) {
  return RequestPrefix(shard, ns, workflow_id).append(request_id);
}

std::string Forget(std::string_view request_key, int64_t forget_ms) {
  std::string out(request_key.substr(0, kHeadBytes));
  out.back() = static_cast<char>(Table::kForget);
  AppendU64(out, static_cast<uint64_t>(forget_ms));
  out += request_key.substr(kHeadBytes);
  return out;
}

std::string ForgetUntil(store::ShardId shard, int64_t forget_ms) {
  std::string out = Head(shard, Table::kForget);
  AppendU64(out, static_cast<uint64_t>(forget_ms));
  return out;
}

std::string RequestOf(std::string_view forget_key) {
  std::string out(forget_key.substr(0, kHeadBytes));
  out.back() = static_cast<char>(Table::kRequest);
  out += forget_key.substr(kHeadBytes + 8);
  return out;
}

std::string SnapshotsPrefix(store::ShardId shard, const RunId& run) {
  return WithRun(shard, Table::kSnapshot, run);
}

std::string SnapshotPrefix(store::ShardId shard, const RunId& run, uint64_t ordinal) {
  std::string out = SnapshotsPrefix(shard, run);
  AppendU64(out, ordinal);
  return out;
}

std::string Snapshot(store::ShardId shard, const RunId& run, uint64_t ordinal, uint32_t page) {
  std::string out = SnapshotPrefix(shard, run, ordinal);
  AppendU64(out, page);
  return out;
}

std::string VisiblePrefix(store::ShardId shard, std::string_view ns) {
  std::string out = Head(shard, Table::kVisible);
  AppendId(out, ns);
  return out;
}

std::string WorkflowPrefix(store::ShardId shard, std::string_view ns, std::string_view workflow) {
  std::string out = Head(shard, Table::kByWorkflow);
  AppendId(out, ns);
  AppendId(out, workflow);
  return out;
}

std::string LabelPrefix(store::ShardId shard, std::string_view ns, std::string_view name,
                        std::string_view value) {
  std::string out = Head(shard, Table::kByLabel);
  AppendId(out, ns);
  AppendId(out, name);
  AppendId(out, value);
  return out;
}

std::string At(std::string prefix, const Place& place) {
  prefix += static_cast<char>(place.status);
  AppendU64(prefix, ~static_cast<uint64_t>(place.start_ms));
  AppendRunReversed(prefix, place.run);
  return prefix;
}

std::pair<std::string, std::string> PlaceRange(const std::string& prefix, uint8_t status,
                                               int64_t start_min, int64_t start_max) {
  std::string begin = prefix;
  begin += static_cast<char>(status);
  std::string end = begin;
  AppendU64(begin, ~static_cast<uint64_t>(start_max));
  AppendU64(end, ~static_cast<uint64_t>(start_min));
  return {std::move(begin), PrefixEnd(std::move(end))};
}

std::optional<Place> PlaceOf(std::string_view key) {
  if (key.size() < kHeadBytes + 1 + kPlaceBytes) return std::nullopt;
  const std::string_view tail = key.substr(key.size() - kPlaceBytes);
  Place out;
  out.status = static_cast<uint8_t>(tail[0]);
  out.start_ms = static_cast<int64_t>(~ReadU64(tail.substr(1)));
  out.run = {~ReadU64(tail.substr(9)), ~ReadU64(tail.substr(17))};
  return out;
}

std::string Ended(store::ShardId shard, int64_t close_ms, const RunId& run) {
  std::string out = EndedUntil(shard, close_ms);
  AppendRun(out, run);
  return out;
}

std::string EndedUntil(store::ShardId shard, int64_t close_ms) {
  std::string out = Head(shard, Table::kEnded);
  AppendU64(out, static_cast<uint64_t>(close_ms));
  return out;
}

std::optional<int64_t> ClosedOf(std::string_view key) {
  if (key.size() != kHeadBytes + 8 + 16) return std::nullopt;
  return static_cast<int64_t>(ReadU64(key.substr(kHeadBytes)));
}

std::string Counts(store::ShardId shard, std::string_view group) {
  return Head(shard, Table::kCounts).append(group);
}

std::string Clock() { return Head(0, Table::kClock); }

std::string IndexVersion() {
  std::string out = Head(0, Table::kCounts);
  out += '\0';  // no namespace is empty
  return out;
}

std::string Tombstone(store::ShardId shard, const RunId& run) {
  return WithRun(shard, Table::kTombstone, run);
}

std::string Wake(store::ShardId shard, int64_t due_ms, const RunId& run) {
  std::string out = Head(shard, Table::kWake);
  AppendU64(out, static_cast<uint64_t>(due_ms));
  AppendRun(out, run);
  return out;
}

std::string WakeUntil(store::ShardId shard, int64_t due_ms) {
  std::string out = Head(shard, Table::kWake);
  AppendU64(out, static_cast<uint64_t>(due_ms));
  return out;
}

std::string Root(store::ShardId shard, const RunId& run) {
  return WithRun(shard, Table::kRoot, run);
}

std::optional<RunId> TrailingRun(std::string_view key) {
  if (key.size() < kHeadBytes + kRunBytes) return std::nullopt;
  return RunId::FromBytes(key.substr(key.size() - kRunBytes));
}

int64_t WakeDue(std::string_view key) {
  if (key.size() < kHeadBytes + 8) return 0;
  return static_cast<int64_t>(ReadU64(key.substr(kHeadBytes)));
}

store::ShardId ShardOf(std::string_view ns, std::string_view workflow_id, uint32_t shards) {
  std::string key;
  key.reserve(ns.size() + workflow_id.size() + 1);
  AppendId(key, ns);
  key += workflow_id;
  return static_cast<store::ShardId>(XXH3_64bits(key.data(), key.size()) & (shards - 1));
}

}  // namespace flux::engine::keys
