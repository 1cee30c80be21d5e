// Deletion and retention: how an execution goes with all its rows, whenever the process ends.
//
// step          what is durable             what a crash leaves
// buried        its tombstone               nothing to be seen: reads and replay pass it over
// removed       its rows are gone           the tombstone, until the log holds nothing of it
// forgotten     the tombstone is gone       nothing
//
// The tombstone is written with a log entry, like a record; the rows go behind it, in order with
// all other row writes; the tombstone last, once the log is cut behind that entry (rule 7).
#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "engine/shard/engine.h"
#include "engine/shard/index.h"
#include "engine/shard/keys.h"
#include "engine/shard/loader.h"
#include "engine/shard/refusals.h"
#include "proto/bridge.h"

namespace flux::engine {
namespace {

// A run with more rows of its own than this has them deleted by range. Single keys are better for
// the many small ones: every range deletion that stands makes reads a little slower.
constexpr size_t kSingleKeysMax = 64;
constexpr size_t kSweepRuns = 500;            // deleted by one sweep
constexpr size_t kSweepRowsMax = 20'000;      // looked at by one sweep: rules may keep most of them
constexpr int64_t kSweepPauseMs = 100;        // between sweeps that had enough
constexpr int64_t kSweepIntervalMs = 60'000;  // when nothing more is old enough
// A clock that is so far ahead of the store at the start is taken for wrong for so long.
constexpr int64_t kClockAheadMs = 24 * 3'600'000;
constexpr int64_t kClockHeldMs = 24 * 3'600'000;
constexpr int64_t kClockNoteMs = 60'000;
constexpr size_t kTombstonesPerBatch = 5'000;
constexpr size_t kForgetAtOnce = 500;  // keys of up to a kilobyte each

std::string TimeText(int64_t ms) {
  return absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", absl::FromUnixMillis(ms), absl::UTCTimeZone());
}

absl::Status Unknown(const RunId& run) {
  return absl::NotFoundError(absl::StrCat("no run ", run.Text()));
}

absl::Status StillOpen(std::string_view workflow_id, const RunId& run, std::string_view status) {
  return absl::FailedPreconditionError(
      absl::StrCat("execution \"", ToAbsl(workflow_id), "\" (run ", run.Text(), ") is ",
                   ToAbsl(status), ": cancel or terminate it first, then delete it"));
}

// A deletion of every row of a run. `root` is null if it was never flushed.
absl::StatusOr<store::RowBatch> RowsOf(store::Rows& rows, store::ShardId shard, const RunId& run,
                                       const std::string& ns, const std::string& workflow_id,
                                       const v1::RunRoot* root) {
  store::RowBatch batch;
  batch.shard = shard;
  for (std::string prefix : {keys::HistoryPrefix(shard, run), keys::PayloadPrefix(shard, run),
                             keys::SnapshotsPrefix(shard, run)}) {
    std::string end = keys::PrefixEnd(prefix);
    std::vector<std::string> found;
    FLUX_RETURN_IF_ERROR(rows.Scan(prefix, end, [&](std::string_view key, std::string_view) {
      found.emplace_back(key);
      return found.size() <= kSingleKeysMax;
    }));
    if (found.size() > kSingleKeysMax) {
      batch.delete_ranges.emplace_back(std::move(prefix), std::move(end));
    } else if (!found.empty()) {
      for (std::string& key : found) batch.deletes.push_back(std::move(key));
      batch.emptied.emplace_back(std::move(prefix), std::move(end));
    }
  }
  if (root == nullptr) return batch;
  if (root->has_indexed()) {
    for (std::string& key : IndexKeys(shard, ns, root->start_time_ms(), run, root->indexed())) {
      batch.deletes.push_back(std::move(key));
    }
  }
  if (root->wake_due_ms() != 0) {
    batch.deletes.push_back(keys::Wake(shard, root->wake_due_ms(), run));
  }
  for (const v1::ReadyMark& mark : root->ready()) {
    batch.deletes.push_back(keys::Ready(shard, mark.queue(), mark.since_ms(), run));
  }
  if (root->active()) batch.deletes.push_back(keys::Active(shard, run));
  batch.deletes.push_back(keys::Current(shard, ns, workflow_id, run));
  batch.deletes.push_back(keys::Root(shard, run));
  return batch;
}

absl::StatusOr<std::optional<v1::RunRoot>> ReadRoot(store::Rows& rows, store::ShardId shard,
                                                    const RunId& run) {
  FLUX_ASSIGN_OR_RETURN(std::optional<std::string> row, rows.Get(keys::Root(shard, run)));
  std::optional<v1::RunRoot> root;
  if (row && !root.emplace().ParseFromString(*row)) {
    return absl::DataLossError(absl::StrCat("run ", run.Text(), ": its root row cannot be parsed"));
  }
  return root;
}

// How long one that closed so is kept, by the first rule that fits; 0: for ever.
int64_t KeepMs(const EngineOptions& options, const EndedValue& ended) {
  for (const RetentionRule& rule : options.retention_rules) {
    if (!rule.workflow.empty() && rule.workflow != ended.workflow) continue;
    if (rule.status != v1::EXECUTION_STATUS_UNSPECIFIED && rule.status != ended.status) continue;
    return absl::ToInt64Milliseconds(rule.keep);
  }
  return absl::ToInt64Milliseconds(options.retention);
}

// The shortest time that any execution is kept; 0: all of them for ever.
int64_t ShortestKeepMs(const EngineOptions& options) {
  int64_t shortest = absl::ToInt64Milliseconds(options.retention);
  for (const RetentionRule& rule : options.retention_rules) {
    const int64_t keep = absl::ToInt64Milliseconds(rule.keep);
    if (keep > 0 && (shortest <= 0 || keep < shortest)) shortest = keep;
  }
  return shortest;
}

}  // namespace

// ---- asking for it
// ----------------------------------------------------------------------------------------

void Engine::Delete(v1::ExecutionRef ref, std::string identity, std::string reason,
                    Reply<v1::OperateExecutionResponse> reply) {
  if (absl::Status status = CheckRef(ref); !status.ok()) return reply(status);
  Post([this, ref = std::move(ref), identity = std::move(identity), reason = std::move(reason),
        reply = std::move(reply)]() mutable {
    DeleteCallback done = [this, ref, identity = std::move(identity), reason = std::move(reason),
                           reply = std::move(reply)](const absl::Status& status,
                                                     const RunId& run) mutable {
      if (!status.ok()) {
        return ReplyWith<v1::OperateExecutionResponse>(std::move(reply), status);
      }
      Log(1, absl::StrCat("execution \"", ref.workflow_id(), "\" run ", run.Text(),
                          " was deleted by ", identity.empty() ? "(unnamed)" : identity,
                          reason.empty() ? "" : ": ", reason));
      NoteDeletion(run, std::move(identity), std::move(reason));
      v1::OperateExecutionResponse response;
      response.set_run_id(run.Text());
      ReplyWith<v1::OperateExecutionResponse>(std::move(reply), std::move(response));
    };
    if (!ref.run_id().empty()) {
      return DeleteRun(*RunId::FromText(ref.run_id()), ref, std::move(done));
    }
    const std::string id_key =
        absl::StrCat(ref.namespace_(), absl::string_view("\0", 1), ref.workflow_id());
    WithId(id_key, [this, id_key, ref, done = std::move(done)](const absl::Status& found) mutable {
      if (!found.ok()) return done(found, RunId{});
      const RunId run = ids_[id_key].current;
      if (run.empty()) {
        done(NoExecution(ref), run);
        DropIdIfUnused(id_key);
        return;
      }
      DeleteRun(run, ref, std::move(done));
    });
  });
}

void Engine::DeleteRun(const RunId& run, v1::ExecutionRef ref, DeleteCallback done) {
  store::ShardId shard = 0;
  if (deletions_.contains(run) || !ShardOfRun(run, &shard)) return done(Unknown(run), run);
  if (slots_.contains(run)) {
    WithRun(run, [this, run, ref = std::move(ref), done = std::move(done)](
                     Slot* slot, const absl::Status& status) mutable {
      if (slot == nullptr) return done(status, run);
      // Whoever is up the stack may still hold the slot.
      deferred_.push_back([this, run, ref = std::move(ref), done = std::move(done)]() mutable {
        DeleteResident(run, std::move(ref), std::move(done));
      });
    });
    return;
  }
  // One that is not in memory is not brought there for this.
  env_.background->Run([this, run, shard, ref = std::move(ref), done = std::move(done)]() mutable {
    absl::StatusOr<std::optional<v1::RunRoot>> root = ReadRoot(env_.store->rows(), shard, run);
    v1::ExecutionSummary summary;
    if (root.ok() && *root) {
      const absl::StatusOr<std::optional<std::string>> row = env_.store->rows().Get(
          keys::Current(shard, (*root)->namespace_(), (*root)->workflow_id(), run));
      if (!row.ok() || (*row && !summary.ParseFromString(**row))) {
        root = row.ok() ? absl::DataLossError(
                              absl::StrCat("run ", run.Text(), ": its index row cannot be parsed"))
                        : row.status();
      }
    }
    Post([this, run, shard, root = std::move(root), summary = std::move(summary),
          ref = std::move(ref), done = std::move(done)]() mutable {
      if (slots_.contains(run) || deletions_.contains(run)) {
        return DeleteRun(run, std::move(ref), std::move(done));
      }
      if (!root.ok()) return done(root.status(), run);
      if (!*root || (*root)->namespace_() != ref.namespace_() ||
          (!ref.workflow_id().empty() && (*root)->workflow_id() != ref.workflow_id())) {
        return done(Unknown(run), run);
      }
      if (!(*root)->closed()) {
        return done(StillOpen((*root)->workflow_id(), run, StatusWord((*root)->indexed().status())),
                    run);
      }
      Bury(run, shard, **root, summary.request_id(),
           {summary.workflow(), summary.status(), summary.close_time_ms()});
      done(absl::OkStatus(), run);
    });
  });
}

void Engine::DeleteResident(const RunId& run, v1::ExecutionRef ref, DeleteCallback done) {
  const auto it = slots_.find(run);
  if (it == slots_.end() || !it->second->execution) {
    return DeleteRun(run, std::move(ref), std::move(done));
  }
  Slot& slot = *it->second;
  const v1::ExecutionStarted& started = slot.execution->started();
  if (started.namespace_() != ref.namespace_() ||
      (!ref.workflow_id().empty() && started.workflow_id() != ref.workflow_id())) {
    return done(Unknown(run), run);
  }
  if (!slot.execution->closed()) {
    return done(StillOpen(started.workflow_id(), run, StatusWord(slot.execution->status())), run);
  }
  if (HasOutbox(*slot.execution)) {
    return done(absl::UnavailableError(absl::StrCat(
                    "execution \"", started.workflow_id(), "\" (run ", run.Text(),
                    ") has messages to other executions that are not sent yet: try again")),
                run);
  }
  if (slot.flushing) {  // what stands in its rows is known only once they are written
    after_flush_[run].push_back(
        [this, run, ref = std::move(ref), done = std::move(done)]() mutable {
          DeleteResident(run, std::move(ref), std::move(done));
        });
    return;
  }
  v1::RunRoot root = slot.root;
  root.set_namespace_(started.namespace_());
  root.set_workflow_id(started.workflow_id());
  // By value: the slot goes.
  const std::string request_id = started.request_id();
  Bury(run, slot.shard, root, request_id,
       {started.workflow(), slot.execution->status(), slot.execution->close_time_ms()});
  done(absl::OkStatus(), run);
}

// ---- burying
// ----------------------------------------------------------------------------------------------

// `root` is what the rows say of it: without a flushed ordinal there are none but payloads.
void Engine::Bury(const RunId& run, store::ShardId id, const v1::RunRoot& root,
                  const std::string& request_id, const LastWords& last) {
  ++counters_.deletions;
  Shard& shard = Activate(id);
  Deletion deletion;
  deletion.shard = id;
  deletion.lsn = shard.next_lsn;
  deletion.ns = root.namespace_();
  deletion.workflow_id = root.workflow_id();
  deletion.last = last;
  if (root.has_indexed()) deletion.indexed = root.indexed();
  v1::DeletedRun row;
  row.set_lsn(deletion.lsn);
  row.set_namespace_(deletion.ns);
  row.set_workflow_id(deletion.workflow_id);
  row.set_time_ms(env_.clock->WallMs());
  shard.rows.push_back({keys::Tombstone(id, run), row.SerializeAsString()});
  shard.tombstones.emplace_back(deletion.lsn, run);

  const std::string id_key =
      absl::StrCat(deletion.ns, absl::string_view("\0", 1), deletion.workflow_id);
  if (const auto it = slots_.find(run); it != slots_.end()) {
    Slot& slot = *it->second;
    ids_[id_key].in_memory.erase(run);
    DisarmTimer(slot);
    Unpin(slot);
    cache_bytes_ -= slot.memory_bytes;
    lru_.erase(slot.lru);
    for (SlotCallback& callback : slot.waiting) {
      deferred_.push_back(
          [run, callback = std::move(callback)]() mutable { callback(nullptr, Unknown(run)); });
    }
    slots_.erase(it);
  }
  RememberRequest(shard, id_key, request_id, run, last.close_ms);
  if (const auto it = ids_.find(id_key); it != ids_.end()) {
    // What is known of the id is read again when it is needed next; what is in memory is known.
    IdEntry& entry = it->second;
    entry.loaded = false;
    entry.stale = entry.loading;
    entry.runs.clear();
    entry.current = entry.in_memory.empty() ? RunId{} : *entry.in_memory.rbegin();
    DropIdIfUnused(id_key);
  }
  standing_.insert(run);
  deletions_.emplace(run, std::move(deletion));
  ReplyLater([this, run] { CollectRows(run); });
}

// Rule 10: the same request answers the same run for a day, though the run is deleted.
void Engine::RememberRequest(Shard& shard, const std::string& id_key, const std::string& request_id,
                             const RunId& run, int64_t close_ms) {
  const int64_t forget_ms = close_ms + kRequestsKeptMs;
  if (request_id.empty() || forget_ms <= SteadyWallMs()) return;
  const size_t split = id_key.find('\0');
  std::string key = keys::Request(shard.id, std::string_view(id_key).substr(0, split),
                                  std::string_view(id_key).substr(split + 1), request_id);
  v1::StoredRequest row;
  row.set_run_id(run.Bytes());
  row.set_forget_ms(forget_ms);
  shard.rows.push_back({keys::Forget(key, forget_ms), ""});
  shard.rows.push_back({std::move(key), row.SerializeAsString()});
  // Whoever asks before that is written finds it here.
  IdEntry& entry = ids_[id_key];
  entry.requests.insert_or_assign(request_id, run);
  ++entry.holds;
  ReplyLater([this, id_key] {
    --ids_[id_key].holds;
    DropIdIfUnused(id_key);
  });
}

void Engine::CollectRows(const RunId& run) {
  ++removing_;
  const Deletion& deletion = deletions_.at(run);
  env_.background->Run([this, run, shard = deletion.shard, ns = deletion.ns,
                        workflow_id = deletion.workflow_id] {
    store::Rows& rows = env_.store->rows();
    absl::StatusOr<std::optional<v1::RunRoot>> root = ReadRoot(rows, shard, run);
    absl::StatusOr<store::RowBatch> batch =
        root.ok() ? RowsOf(rows, shard, run, ns, workflow_id, *root ? &**root : nullptr)
                  : absl::StatusOr<store::RowBatch>(root.status());
    Post([this, run, batch = std::move(batch)]() mutable { RemoveRows(run, std::move(batch)); });
  });
}

void Engine::RemoveRows(const RunId& run, absl::StatusOr<store::RowBatch> batch) {
  Deletion& deletion = deletions_.at(run);
  Shard& shard = shards_[deletion.shard];
  if (!batch.ok()) {
    // It stays buried, and the next start tries again.
    Log(3, absl::StrCat("run ", run.Text(), " is deleted, but its rows cannot be removed: ",
                        batch.status().ToString()));
    std::erase_if(shard.tombstones, [&](const auto& entry) { return entry.second == run; });
    --removing_;
    return;
  }
  Flush flush;
  batch->epoch = shard.epoch;
  flush.batches.push_back(*std::move(batch));
  if (deletion.indexed) {
    const std::string group = ShardCounts::Group(deletion.ns, deletion.indexed->workflow());
    shard.counts.Add(group, deletion.indexed->status(), -1);
    PutCounts(shard, group, flush, 0);
    deletion.indexed.reset();
  }
  flush.removed.push_back(run);
  QueueRows(std::move(flush));
}

void Engine::RowsRemoved(const RunId& run) {
  --removing_;
  standing_.erase(run);
  deletions_.at(run).gone = true;
}

// Tombstones that neither rows nor log need any more.
void Engine::ForgetDeletions() {
  for (Shard& shard : shards_) {
    store::RowBatch batch;
    while (!shard.tombstones.empty() && batch.deletes.size() < kTombstonesPerBatch) {
      const auto& [lsn, run] = shard.tombstones.front();
      if (lsn > shard.truncated || !deletions_.at(run).gone) break;
      batch.deletes.push_back(keys::Tombstone(shard.id, run));
      deletions_.erase(run);
      shard.tombstones.pop_front();
    }
    if (batch.deletes.empty()) continue;
    batch.shard = shard.id;
    batch.epoch = shard.epoch;
    Flush flush;
    flush.batches.push_back(std::move(batch));
    QueueRows(std::move(flush));
  }
}

// ---- recovery
// ---------------------------------------------------------------------------------------------

absl::Status Engine::LoadTombstones(Shard& shard) {
  const auto [begin, end] = keys::TableRange(shard.id, keys::Table::kTombstone);
  absl::Status bad;
  FLUX_RETURN_IF_ERROR(
      env_.store->rows().Scan(begin, end, [&](std::string_view key, std::string_view value) {
        const std::optional<RunId> run = keys::TrailingRun(key);
        v1::DeletedRun row;
        if (!run || !row.ParseFromArray(value.data(), static_cast<int>(value.size()))) {
          bad = absl::DataLossError(
              absl::StrCat("a tombstone row of shard ", shard.id, " cannot be parsed"));
          return false;
        }
        Deletion deletion;
        deletion.shard = shard.id;
        deletion.lsn = row.lsn();
        deletion.ns = row.namespace_();
        deletion.workflow_id = row.workflow_id();
        shard.tombstones.emplace_back(deletion.lsn, *run);
        standing_.insert(*run);
        deletions_.emplace(*run, std::move(deletion));
        return true;
      }));
  FLUX_RETURN_IF_ERROR(bad);
  std::sort(shard.tombstones.begin(), shard.tombstones.end());
  for (const auto& [lsn, run] : shard.tombstones) {
    // Its root row goes in one batch with its index rows and with their part of the counts.
    FLUX_ASSIGN_OR_RETURN(std::optional<v1::RunRoot> root,
                          ReadRoot(env_.store->rows(), shard.id, run));
    if (root && root->has_indexed()) deletions_.at(run).indexed = root->indexed();
  }
  return absl::OkStatus();
}

void Engine::ResumeDeletions() {
  for (const auto& [run, deletion] : deletions_) CollectRows(run);
}

// ---- retention
// --------------------------------------------------------------------------------------------

void Engine::SweepRetention() {
  const int64_t keep_ms = ShortestKeepMs(options_);
  const int64_t now = env_.clock->MonotonicMs();
  // One sweep's executions are all gone before the next begins: the pace of the disk is ours.
  if (keep_ms <= 0 || sweeping_ || removing_ > 0 || now < next_sweep_ms_ || shutting_down_) {
    return;
  }
  sweeping_ = true;
  env_.background->Run([this, wall = SteadyWallMs(), until = SteadyWallMs() - keep_ms,
                        shard = sweep_shard_, cursor = sweep_cursor_]() mutable {
    struct Old {
      RunId run;
      v1::ExecutionRef ref;
    };
    std::vector<Old> old;
    size_t rows = 0;
    const auto full = [&] { return old.size() >= kSweepRuns || rows >= kSweepRowsMax; };
    absl::Status status;
    const auto shards = static_cast<store::ShardId>(shards_.size());
    while (until > 0 && shard < shards && !full()) {
      const std::string begin =
          cursor.empty() ? keys::TableRange(shard, keys::Table::kEnded).first : cursor + '\0';
      status = env_.store->rows().Scan(
          begin, keys::EndedUntil(shard, until), [&](std::string_view key, std::string_view value) {
            cursor = std::string(key);
            ++rows;
            const std::optional<RunId> run = keys::TrailingRun(key);
            const std::optional<int64_t> closed = keys::ClosedOf(key);
            const std::optional<EndedValue> ended = EndedValue::Decode(value);
            if (!run || !closed || !ended) return !full();
            const int64_t keep = KeepMs(options_, *ended);
            if (keep <= 0 || *closed >= wall - keep) return !full();
            Old& each = old.emplace_back();
            each.run = *run;
            each.ref.set_namespace_(std::string(ended->ns));
            each.ref.set_workflow_id(std::string(ended->workflow_id));
            return !full();
          });
      if (!status.ok()) break;
      if (!full()) {
        ++shard;
        cursor.clear();
      }
    }
    Post([this, status, full = full(), shard, cursor = std::move(cursor),
          old = std::move(old)]() mutable {
      sweeping_ = false;
      next_sweep_ms_ = env_.clock->MonotonicMs() + (full ? kSweepPauseMs : kSweepIntervalMs);
      sweep_shard_ = full ? shard : 0;
      sweep_cursor_ = full ? std::move(cursor) : "";
      if (!status.ok()) {
        Log(3, absl::StrCat("executions to delete by age cannot be found: ", status.ToString()));
        return;
      }
      for (Old& each : old) {
        DeleteRun(each.run, std::move(each.ref),
                  [this](const absl::Status& done, const RunId& run) {
                    if (done.ok()) {
                      ++counters_.retention_deletions;
                    } else if (!absl::IsNotFound(done) && !absl::IsFailedPrecondition(done)) {
                      Log(2, absl::StrCat("run ", run.Text(),
                                          " is due for deletion by its age: ", done.ToString()));
                    }
                  });
      }
    });
  });
}

int64_t Engine::SteadyWallMs() const {
  const int64_t running = env_.clock->MonotonicMs() - start_monotonic_ms_;
  return std::min(env_.clock->WallMs(), steady_start_ms_ + running + kSweepIntervalMs);
}

absl::Status Engine::LoadClock() {
  steady_start_ms_ = start_wall_ms_;
  FLUX_ASSIGN_OR_RETURN(std::optional<std::string> row, env_.store->rows().Get(keys::Clock()));
  if (!row) return absl::OkStatus();
  if (!absl::SimpleAtoi(*row, &known_wall_ms_)) {
    return absl::DataLossError("the row of the newest time known cannot be parsed");
  }
  if (start_wall_ms_ - known_wall_ms_ <= kClockAheadMs) return absl::OkStatus();
  const std::string clock = absl::StrCat("the clock says ", TimeText(start_wall_ms_), ", ",
                                         (start_wall_ms_ - known_wall_ms_) / 3'600'000,
                                         " hours after the newest time in the data directory, ",
                                         TimeText(known_wall_ms_));
  if (options_.accept_clock) {
    Log(1, absl::StrCat(clock, ": taken for right, as accept-clock asks"));
    return absl::OkStatus();
  }
  clock_held_ = true;
  steady_start_ms_ = known_wall_ms_;
  Log(2, absl::StrCat(clock,
                      ". If it is wrong, set it. Nothing is deleted for an age that it has only by "
                      "this clock until fluxd has run for a day; if the clock is right, start once "
                      "with --accept-clock to go on at once"));
  return absl::OkStatus();
}

void Engine::WatchClock() {
  const int64_t now = env_.clock->MonotonicMs();
  const int64_t running = now - start_monotonic_ms_;
  if (clock_held_) {
    const int64_t wall = env_.clock->WallMs();
    const bool set = wall - known_wall_ms_ - running <= kClockAheadMs;
    if (!set && running < kClockHeldMs) return;
    clock_held_ = false;
    steady_start_ms_ = wall - running;
    Log(1,
        absl::StrCat("the clock, ", TimeText(wall), ", is trusted again",
                     set ? ": it has been set" : " after a day", "; what is old by it is deleted"));
  }
  // A store that nothing is written to is left alone.
  if (counters_.commits == clock_noted_commits_ || now - last_clock_note_ms_ < kClockNoteMs) return;
  last_clock_note_ms_ = now;
  clock_noted_commits_ = counters_.commits;
  if (SteadyWallMs() <= known_wall_ms_) return;
  known_wall_ms_ = SteadyWallMs();
  store::RowBatch batch;
  batch.epoch = shards_[0].epoch;
  batch.puts.push_back({keys::Clock(), std::to_string(known_wall_ms_)});
  Flush flush;
  flush.batches.push_back(std::move(batch));
  QueueRows(std::move(flush));
}

void Engine::ForgetRequests() {
  const int64_t now = env_.clock->MonotonicMs();
  if (forgetting_ || now < next_forget_ms_ || shutting_down_) return;
  forgetting_ = true;
  env_.background->Run([this, wall = SteadyWallMs()] {
    std::vector<store::RowBatch> batches;
    size_t found = 0;
    absl::Status status;
    for (const Shard& shard : shards_) {
      if (!status.ok() || found >= kForgetAtOnce) break;
      store::RowBatch batch;
      batch.shard = shard.id;
      status = env_.store->rows().Scan(keys::TableRange(shard.id, keys::Table::kForget).first,
                                       keys::ForgetUntil(shard.id, wall),
                                       [&](std::string_view key, std::string_view) {
                                         batch.deletes.push_back(keys::RequestOf(key));
                                         batch.deletes.emplace_back(key);
                                         return ++found < kForgetAtOnce;
                                       });
      if (status.ok() && found < kForgetAtOnce) {
        status = env_.store->rows().Scan(keys::DeletedBefore(shard.id, wall - kDeletionNotesKeptMs),
                                         keys::TableRange(shard.id, keys::Table::kDeleted).second,
                                         [&](std::string_view key, std::string_view) {
                                           batch.deletes.emplace_back(key);
                                           return ++found < kForgetAtOnce;
                                         });
      }
      if (!batch.deletes.empty()) batches.push_back(std::move(batch));
    }
    Post([this, status, full = found >= kForgetAtOnce, batches = std::move(batches)]() mutable {
      forgetting_ = false;
      next_forget_ms_ = env_.clock->MonotonicMs() + (full ? kSweepPauseMs : kSweepIntervalMs);
      if (!status.ok()) {
        Log(3, absl::StrCat("what to forget of deleted executions cannot be found: ",
                            status.ToString()));
        return;
      }
      if (batches.empty()) return;
      for (store::RowBatch& batch : batches) batch.epoch = shards_[batch.shard].epoch;
      Flush flush;
      flush.batches = std::move(batches);
      QueueRows(std::move(flush));
    });
  });
}

}  // namespace flux::engine
