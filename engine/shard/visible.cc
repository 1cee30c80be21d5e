#include "engine/shard/visible.h"

#include <algorithm>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "engine/shard/index.h"
#include "proto/bridge.h"

namespace flux::engine {
namespace {

constexpr uint64_t kRowsPerStep = 50'000;
// A prefix of workflow ids with more rows than this is common enough to be met soon in time order.
constexpr uint64_t kPrefixRowsMax = 20'000;
// Looked at to guess how many rows an index holds for the query.
constexpr uint64_t kEstimateRowsMax = 500;

RunId RunOf(const v1::ExecutionSummary& summary) {
  return RunId::FromBytes(summary.run_id()).value_or(RunId{});
}

absl::Status Damaged(const RunId& run) {
  return absl::DataLossError(absl::StrCat("an index row of run ", run.Text(), " cannot be parsed"));
}

}  // namespace

absl::StatusOr<VisibleCursor> VisibleCursor::Parse(std::string_view text) {
  VisibleCursor cursor;
  if (text.empty()) return cursor;
  const std::vector<std::string> parts = absl::StrSplit(ToAbsl(text), '-');
  const std::optional<RunId> run =
      parts.size() == 3 ? RunId::FromText(parts[1]) : std::optional<RunId>();
  if (!run || !absl::SimpleAtoi(parts[0], &cursor.start_ms) ||
      !absl::SimpleAtoi(parts[2], &cursor.now_ms) || cursor.now_ms <= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("page token \"", ToAbsl(text), "\" is not from a list of executions"));
  }
  cursor.run = *run;
  return cursor;
}

std::string VisibleCursor::Text() const {
  return absl::StrCat(start_ms, "-", run.Text(), "-", now_ms);
}

v1::ExecutionInfo InfoOf(const v1::ExecutionSummary& summary) {
  v1::ExecutionInfo info;
  info.set_namespace_(summary.namespace_());
  info.set_workflow_id(summary.workflow_id());
  info.set_run_id(RunOf(summary).Text());
  info.set_workflow(summary.workflow());
  info.set_version(summary.version());
  info.set_definition_hash(summary.definition_hash());
  info.set_status(summary.status());
  info.set_start_time_ms(summary.start_time_ms());
  info.set_close_time_ms(summary.close_time_ms());
  *info.mutable_labels() = summary.labels();
  info.set_history_records(summary.history_records());
  info.set_steps_completed(summary.steps_completed());
  info.set_failure_type(summary.failure_type());
  info.set_parked_steps(summary.parked_steps());
  return info;
}

VisibleSearch::VisibleSearch(store::Rows& rows, uint32_t shards, VisibleRequest request)
    : rows_(rows),
      shards_(shards),
      request_(std::move(request)),
      bounds_(request_.query.Bounds()),
      hidden_(request_.hidden.begin(), request_.hidden.end()) {}

// ---- what has been found
// --------------------------------------------------------------------------------

bool VisibleSearch::Wanted(int64_t start_ms, const RunId& run) const {
  if (request_.counting) return true;
  if (!request_.after.Precedes(start_ms, run)) return false;
  if (found_.size() <= request_.count) return true;
  const Found& oldest = found_.front();
  return start_ms != oldest.start_ms ? start_ms > oldest.start_ms : run > oldest.run;
}

void VisibleSearch::Take(v1::ExecutionStatus status, Found found) {
  if (request_.counting) {
    ++counts_[status];
    return;
  }
  found_.push_back(std::move(found));
  std::push_heap(found_.begin(), found_.end(), Newer);
  if (found_.size() > request_.count + 1) {
    std::pop_heap(found_.begin(), found_.end(), Newer);
    found_.pop_back();
  }
}

absl::StatusOr<std::optional<v1::ExecutionSummary>> VisibleSearch::ReadSummary(
    std::string_view workflow_id, const RunId& run) {
  const store::ShardId shard = run.low & 0xffff;
  FLUX_ASSIGN_OR_RETURN(std::optional<std::string> row,
                        rows_.Get(keys::Current(shard, request_.ns, workflow_id, run)));
  std::optional<v1::ExecutionSummary> summary;
  if (!row) return summary;  // deleted meanwhile
  if (!summary.emplace().ParseFromString(*row)) return Damaged(run);
  return summary;
}

absl::StatusOr<VisibleSearch::Page> VisibleSearch::TakePage() {
  std::sort(found_.begin(), found_.end(), Newer);
  Page page;
  if (found_.size() > request_.count) {
    found_.resize(request_.count);
    VisibleCursor next = request_.after;
    next.start_ms = found_.back().start_ms;
    next.run = found_.back().run;
    next.now_ms = request_.query.now_ms();
    page.next = next;
  }
  for (Found& found : found_) {
    if (!found.summary) {
      FLUX_ASSIGN_OR_RETURN(found.summary, ReadSummary(found.workflow_id, found.run));
      // What has changed since its index row was read may match no more.
      if (!found.summary || request_.query.Check(FieldsOf(*found.summary)) != Match::kYes) continue;
    }
    page.executions.push_back(*std::move(found.summary));
  }
  return page;
}

// ---- the way of a search
// --------------------------------------------------------------------------------

absl::StatusOr<bool> VisibleSearch::Step() {
  if (!begun_) {
    begun_ = true;
    FLUX_RETURN_IF_ERROR(Begin());
  }
  const uint64_t until = rows_read_ + kRowsPerStep;
  while (!done_ && rows_read_ < until) {
    if (next_shard_ == shards_) {
      done_ = true;
    } else {
      FLUX_RETURN_IF_ERROR(ReadShard(next_shard_++));
    }
  }
  return done_;
}

absl::Status VisibleSearch::Begin() {
  for (v1::ExecutionSummary& summary : request_.fresh) {
    Found found;
    found.start_ms = summary.start_time_ms();
    found.run = RunOf(summary);
    if (!Wanted(found.start_ms, found.run)) continue;
    const v1::ExecutionStatus status = summary.status();
    found.summary = std::move(summary);
    Take(status, std::move(found));
  }
  request_.fresh.clear();
  const bool none =
      bounds_.statuses == 0 || bounds_.start_min > bounds_.start_max || bounds_.start_max < 0 ||
      std::any_of(bounds_.labels.begin(), bounds_.labels.end(),
                  [](const QueryBounds::Label& label) { return label.values.empty(); });
  if (none) {
    done_ = true;
    return absl::OkStatus();
  }
  if (bounds_.workflow_ids || bounds_.runs) {
    done_ = true;
    return ReadIds();
  }
  if (!bounds_.workflow_id_prefix.empty() && bounds_.labels.empty()) {
    FLUX_ASSIGN_OR_RETURN(done_, ReadPrefix());
    if (done_) return absl::OkStatus();
  }
  return ChoosePath();
}

// Executions that are named one by one are read from the rows by workflow id.
absl::Status VisibleSearch::ReadIds() {
  if (bounds_.workflow_ids) {
    for (const std::string& id : *bounds_.workflow_ids) {
      const store::ShardId shard = keys::ShardOf(request_.ns, id, shards_);
      FLUX_RETURN_IF_ERROR(ReadCurrent(keys::CurrentPrefix(shard, request_.ns, id), UINT64_MAX));
    }
    return absl::OkStatus();
  }
  for (const RunId& run : *bounds_.runs) {
    const store::ShardId shard = run.low & 0xffff;
    if (shard >= shards_) continue;
    FLUX_ASSIGN_OR_RETURN(std::optional<std::string> row, rows_.Get(keys::Root(shard, run)));
    v1::RunRoot root;
    if (!row) continue;
    if (!root.ParseFromString(*row)) return Damaged(run);
    if (root.namespace_() != request_.ns) continue;
    FLUX_RETURN_IF_ERROR(
        ReadCurrent(keys::Current(shard, request_.ns, root.workflow_id(), run), 1));
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> VisibleSearch::ReadPrefix() {
  const std::vector<Found> found = found_;
  const std::map<v1::ExecutionStatus, uint64_t> counts = counts_;
  const uint64_t before = rows_read_;
  for (store::ShardId shard = 0; shard < shards_; ++shard) {
    std::string prefix = keys::CurrentPrefix(shard, request_.ns, bounds_.workflow_id_prefix);
    prefix.pop_back();  // the end of the id
    FLUX_RETURN_IF_ERROR(ReadCurrent(prefix, kPrefixRowsMax - (rows_read_ - before) + 1));
    if (rows_read_ - before > kPrefixRowsMax) {
      found_ = found;
      counts_ = counts;
      return false;
    }
  }
  return true;
}

absl::Status VisibleSearch::ReadCurrent(const std::string& prefix, uint64_t rows_max) {
  absl::Status bad;
  uint64_t read = 0;
  FLUX_RETURN_IF_ERROR(rows_.Scan(
      prefix, keys::PrefixEnd(prefix), [&](std::string_view key, std::string_view value) {
        ++rows_read_;
        Found found;
        v1::ExecutionSummary& summary = found.summary.emplace();
        if (!summary.ParseFromArray(value.data(), static_cast<int>(value.size()))) {
          bad = absl::DataLossError(
              absl::StrCat("an index row cannot be parsed: ", absl::CHexEscape(ToAbsl(key))));
          return false;
        }
        found.start_ms = summary.start_time_ms();
        found.run = RunOf(summary);
        if (!hidden_.contains(found.run) && Wanted(found.start_ms, found.run) &&
            request_.query.Check(FieldsOf(summary)) == Match::kYes) {
          const v1::ExecutionStatus status = summary.status();
          Take(status, std::move(found));
        }
        return ++read < rows_max;
      }));
  return bad;
}

// ---- choosing an index
// ----------------------------------------------------------------------------------

absl::Status VisibleSearch::ChoosePath() {
  std::vector<Path> paths;
  for (const QueryBounds::Label& label : bounds_.labels) paths.push_back({&label, false});
  if (bounds_.workflows) paths.push_back({nullptr, true});
  if (paths.empty()) return absl::OkStatus();
  path_ = paths[0];
  if (paths.size() == 1) return absl::OkStatus();
  double best = -1;
  for (const Path& path : paths) {
    FLUX_ASSIGN_OR_RETURN(double rows, Estimate(path));
    if (best >= 0 && rows >= best) continue;
    best = rows;
    path_ = path;
  }
  return absl::OkStatus();
}

// Executions are spread over the shards by a hash, so that a few shards tell about all.
absl::StatusOr<double> VisibleSearch::Estimate(const Path& path) {
  uint64_t rows = 0;
  for (store::ShardId shard = 0; shard < shards_; ++shard) {
    FLUX_RETURN_IF_ERROR(rows_.ScanRanges(
        RangesOf(path, shard, true), [&](size_t, std::string_view, std::string_view) {
          return ++rows < kEstimateRowsMax ? store::Rows::Next::kRow : store::Rows::Next::kStop;
        }));
    if (rows >= kEstimateRowsMax) return static_cast<double>(rows) * shards_ / (shard + 1);
  }
  return static_cast<double>(rows);
}

std::vector<std::pair<std::string, std::string>> VisibleSearch::RangesOf(
    const Path& path, store::ShardId shard, bool after_cursor,
    std::vector<std::string_view>* values) const {
  std::vector<std::string> prefixes;
  if (path.label != nullptr) {
    for (const std::string& value : path.label->values) {
      prefixes.push_back(keys::LabelPrefix(shard, request_.ns, path.label->name, value));
    }
  } else if (path.workflow) {
    for (const std::string& workflow : *bounds_.workflows) {
      prefixes.push_back(keys::WorkflowPrefix(shard, request_.ns, workflow));
    }
  } else {
    prefixes.push_back(keys::VisiblePrefix(shard, request_.ns));
  }
  const int64_t start_min = std::max<int64_t>(bounds_.start_min, 0);
  std::vector<std::pair<std::string, std::string>> ranges;
  for (size_t i = 0; i < prefixes.size(); ++i) {
    const std::string& prefix = prefixes[i];
    for (int status = kStatusMin; status <= kStatusMax; ++status) {
      if ((bounds_.statuses & StatusBit(static_cast<v1::ExecutionStatus>(status))) == 0) continue;
      auto range =
          keys::PlaceRange(prefix, static_cast<uint8_t>(status), start_min, bounds_.start_max);
      if (after_cursor && request_.after.now_ms != 0) {
        std::string after = keys::At(
            prefix, {static_cast<uint8_t>(status), request_.after.start_ms, request_.after.run});
        after += '\0';
        range.first = std::max(range.first, after);
      }
      if (range.first >= range.second) continue;
      ranges.push_back(std::move(range));
      if (values != nullptr && path.label != nullptr) values->push_back(path.label->values[i]);
    }
  }
  return ranges;
}

absl::Status VisibleSearch::ReadShard(store::ShardId shard) {
  using Next = store::Rows::Next;
  absl::Status bad;
  std::vector<std::string_view> values;
  const auto ranges = RangesOf(path_, shard, !request_.counting, &values);
  FLUX_RETURN_IF_ERROR(
      rows_.ScanRanges(ranges, [&](size_t range, std::string_view key, std::string_view bytes) {
        ++rows_read_;
        const std::optional<keys::Place> place = keys::PlaceOf(key);
        const std::optional<IndexValue> value = IndexValue::Decode(bytes);
        if (!place || !value) {
          bad = Damaged(place ? place->run : RunId{});
          return Next::kStop;
        }
        // Within a range the newest come first.
        if (!Wanted(place->start_ms, place->run)) return Next::kRange;
        if (hidden_.contains(place->run)) return Next::kRow;
        ExecutionFields fields;
        fields.run = place->run;
        fields.status = static_cast<v1::ExecutionStatus>(place->status);
        fields.start_ms = place->start_ms;
        fields.close_ms = value->close_ms;
        fields.workflow = value->workflow;
        fields.workflow_id = value->workflow_id;
        fields.version = value->version;
        fields.failure_type = value->failure_type;
        fields.parked = value->parked;
        if (path_.label != nullptr) {
          fields.known_label = path_.label->name;
          fields.known_value = values[range];
        }
        Match match = request_.query.Check(fields);
        Found found;
        if (match == Match::kUnknown) {
          auto summary = ReadSummary(value->workflow_id, place->run);
          if (!summary.ok()) {
            bad = summary.status();
            return Next::kStop;
          }
          found.summary = *std::move(summary);
          if (!found.summary) return Next::kRow;
          match = request_.query.Check(FieldsOf(*found.summary));
        }
        if (match != Match::kYes) return Next::kRow;
        found.start_ms = place->start_ms;
        found.run = place->run;
        if (!request_.counting) found.workflow_id = std::string(value->workflow_id);
        Take(fields.status, std::move(found));
        return Next::kRow;
      }));
  return bad;
}

}  // namespace flux::engine
