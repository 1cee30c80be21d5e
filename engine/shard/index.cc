#include "engine/shard/index.h"

#include <xxhash.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/bridge.h"

namespace flux::engine {
namespace {

// LEB128, as protobuf's varints.
void AppendVarint(std::string& out, uint64_t v) {
  while (v >= 0x80) {
    out += static_cast<char>(v | 0x80);
    v >>= 7;
  }
  out += static_cast<char>(v);
}

bool TakeVarint(std::string_view& bytes, uint64_t* v) {
  *v = 0;
  for (int shift = 0; shift < 64 && !bytes.empty(); shift += 7) {
    const auto byte = static_cast<uint8_t>(bytes[0]);
    bytes.remove_prefix(1);
    *v |= uint64_t{byte & 0x7fu} << shift;
    if (byte < 0x80) return true;
  }
  return false;
}

bool TakeText(std::string_view& bytes, std::string_view* text) {
  const size_t end = bytes.find('\0');
  if (end == std::string_view::npos) return false;
  *text = bytes.substr(0, end);
  bytes.remove_prefix(end + 1);
  return true;
}

// Rows in the order of the labels' names, whatever order the map has.
std::vector<std::pair<std::string_view, std::string_view>> Sorted(
    const google::protobuf::Map<std::string, std::string>& labels) {
  std::vector<std::pair<std::string_view, std::string_view>> sorted;
  sorted.reserve(labels.size());
  for (const auto& [name, value] : labels) sorted.emplace_back(name, value);
  std::sort(sorted.begin(), sorted.end());
  return sorted;
}

}  // namespace

std::string IndexValue::Encode() const {
  std::string out;
  out.reserve(16 + workflow.size() + workflow_id.size() + version.size() + failure_type.size());
  AppendVarint(out, static_cast<uint64_t>(close_ms));
  for (std::string_view text : {workflow, workflow_id, version, failure_type}) {
    out += text;
    out += '\0';
  }
  // Rows that were written before there was this field end here, and say the same.
  if (parked != 0) AppendVarint(out, parked);
  return out;
}

std::optional<IndexValue> IndexValue::Decode(std::string_view bytes) {
  IndexValue value;
  uint64_t close = 0;
  if (!TakeVarint(bytes, &close) || !TakeText(bytes, &value.workflow) ||
      !TakeText(bytes, &value.workflow_id) || !TakeText(bytes, &value.version) ||
      !TakeText(bytes, &value.failure_type) ||
      (!bytes.empty() && !TakeVarint(bytes, &value.parked))) {
    return std::nullopt;
  }
  value.close_ms = static_cast<int64_t>(close);
  return value;
}

IndexValue IndexValue::Of(const v1::ExecutionSummary& summary) {
  IndexValue value;
  value.close_ms = summary.close_time_ms();
  value.workflow = summary.workflow();
  value.workflow_id = summary.workflow_id();
  value.version = summary.version();
  value.failure_type = summary.failure_type();
  value.parked = summary.parked_steps();
  return value;
}

std::string EndedValue::Encode() const {
  std::string out(1, static_cast<char>(status));
  for (std::string_view text : {ns, workflow_id, workflow}) {
    out += text;
    out += '\0';
  }
  return out;
}

std::optional<EndedValue> EndedValue::Decode(std::string_view bytes) {
  if (bytes.empty()) return std::nullopt;
  EndedValue value;
  value.status = static_cast<v1::ExecutionStatus>(bytes[0]);
  bytes.remove_prefix(1);
  if (!TakeText(bytes, &value.ns) || !TakeText(bytes, &value.workflow_id) ||
      !TakeText(bytes, &value.workflow)) {
    return std::nullopt;
  }
  return value;
}

EndedValue EndedValue::Of(const v1::ExecutionSummary& summary) {
  EndedValue value;
  value.status = summary.status();
  value.ns = summary.namespace_();
  value.workflow_id = summary.workflow_id();
  value.workflow = summary.workflow();
  return value;
}

std::vector<std::string> IndexKeys(store::ShardId shard, std::string_view ns, int64_t start_ms,
                                   const RunId& run, const v1::IndexMark& mark) {
  const keys::Place place{static_cast<uint8_t>(mark.status()), start_ms, run};
  std::vector<std::string> out;
  out.reserve(3 + mark.labels_size());
  out.push_back(keys::At(keys::VisiblePrefix(shard, ns), place));
  out.push_back(keys::At(keys::WorkflowPrefix(shard, ns, mark.workflow()), place));
  for (const auto& [name, value] : Sorted(mark.labels())) {
    out.push_back(keys::At(keys::LabelPrefix(shard, ns, name, value), place));
  }
  if (mark.close_time_ms() != 0) out.push_back(keys::Ended(shard, mark.close_time_ms(), run));
  return out;
}

IndexUpdate UpdateIndex(store::ShardId shard, const v1::ExecutionSummary& summary,
                        const v1::IndexMark* before) {
  IndexUpdate update;
  std::string value = IndexValue::Of(summary).Encode();
  update.mark.set_status(summary.status());
  update.mark.set_close_time_ms(summary.close_time_ms());
  update.mark.set_workflow(summary.workflow());
  *update.mark.mutable_labels() = summary.labels();
  update.mark.set_value_hash(XXH3_64bits(value.data(), value.size()));

  const RunId run = RunId::FromBytes(summary.run_id()).value_or(RunId{});
  const std::string ended_value = EndedValue::Of(summary).Encode();
  std::vector<std::string> old;
  bool rewrite = true;
  if (before != nullptr) {
    old = IndexKeys(shard, summary.namespace_(), summary.start_time_ms(), run, *before);
    // All keys but the one by close time have the status in them.
    rewrite = before->value_hash() != update.mark.value_hash() ||
              before->status() != update.mark.status();
  }
  for (std::string& key :
       IndexKeys(shard, summary.namespace_(), summary.start_time_ms(), run, update.mark)) {
    const auto stands = std::find(old.begin(), old.end(), key);
    const bool stood = stands != old.end();
    if (stood) old.erase(stands);
    if (stood && !rewrite) continue;
    const bool ended = static_cast<keys::Table>(key[2]) == keys::Table::kEnded;
    update.puts.push_back({std::move(key), ended ? ended_value : value});
  }
  update.deletes = std::move(old);
  return update;
}

// ---- counts
// -------------------------------------------------------------------------------------------------

std::string ShardCounts::Group(std::string_view ns, std::string_view workflow) {
  return absl::StrCat(ToAbsl(ns), absl::string_view("\0", 1), ToAbsl(workflow),
                      absl::string_view("\0", 1));
}

absl::Status ShardCounts::Load(std::string_view group, std::string_view row) {
  v1::VisibleCounts counts;
  if (!counts.ParseFromArray(row.data(), static_cast<int>(row.size())) ||
      counts.by_status_size() > kStatusMax + 1) {
    return absl::DataLossError(absl::StrCat("the row that counts the executions of \"",
                                            ToAbsl(group), "\" cannot be parsed"));
  }
  ByStatus& by_status = groups_[std::string(group)];
  std::copy(counts.by_status().begin(), counts.by_status().end(), by_status.begin());
  return absl::OkStatus();
}

void ShardCounts::Add(const std::string& group, v1::ExecutionStatus status, int64_t by) {
  groups_[group][static_cast<size_t>(status)] += static_cast<uint64_t>(by);
}

std::string ShardCounts::Row(const std::string& group) const {
  const auto it = groups_.find(group);
  v1::VisibleCounts counts;
  if (it == groups_.end()) return "";
  size_t last = 0;
  for (size_t i = 0; i < it->second.size(); ++i) {
    if (it->second[i] != 0) last = i;
  }
  if (last == 0) return "";
  for (size_t i = 0; i <= last; ++i) counts.add_by_status(it->second[i]);
  return counts.SerializeAsString();
}

}  // namespace flux::engine
