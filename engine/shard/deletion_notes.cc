// What is kept of deletions that somebody asked for: who, when and why. A deleted execution has no
// history that could say it. A note is written with the tombstone, in one log entry.
#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "engine/shard/engine.h"
#include "engine/shard/keys.h"
#include "engine/shard/refusals.h"
#include "proto/bridge.h"

namespace flux::engine {
namespace {

constexpr uint32_t kPageDefault = 100;
constexpr uint32_t kPageMax = 1'000;
constexpr store::ShardId kAnyShard = 0;  // keys are compared behind their shard

// The part of a key by which all shards' notes are ordered, newest first.
std::string PlaceOf(int64_t delete_ms, const RunId& run) {
  return keys::Deleted(kAnyShard, delete_ms, run);
}

struct Found {
  std::string place;
  v1::DeletedExecution deletion;
};

// Up to `most` notes of a shard behind `after`, of the namespace and, unless it is empty, the id.
absl::Status Collect(store::Rows& rows, store::ShardId shard,
                     const v1::ListDeletionsRequest& request, const std::string& after, size_t most,
                     std::vector<Found>* found) {
  auto [begin, end] = keys::TableRange(shard, keys::Table::kDeleted);
  if (!after.empty()) {
    const auto place = keys::DeletionOf(after);
    begin = keys::Deleted(shard, place->first, place->second) + '\0';
  }
  absl::Status bad;
  size_t count = 0;
  FLUX_RETURN_IF_ERROR(rows.Scan(begin, end, [&](std::string_view key, std::string_view value) {
    const auto place = keys::DeletionOf(key);
    v1::DeletionNote note;
    if (!place || !note.ParseFromArray(value.data(), static_cast<int>(value.size()))) {
      bad = absl::DataLossError(
          absl::StrCat("a note of a deletion in shard ", shard, " cannot be parsed"));
      return false;
    }
    if (note.namespace_() != request.namespace_() ||
        (!request.workflow_id().empty() && note.workflow_id() != request.workflow_id())) {
      return true;
    }
    Found& one = found->emplace_back();
    one.place = PlaceOf(place->first, place->second);
    one.deletion.set_workflow_id(std::move(*note.mutable_workflow_id()));
    one.deletion.set_run_id(place->second.Text());
    one.deletion.set_workflow(std::move(*note.mutable_workflow()));
    one.deletion.set_status(note.status());
    one.deletion.set_close_time_ms(note.close_time_ms());
    one.deletion.set_delete_time_ms(place->first);
    one.deletion.set_identity(std::move(*note.mutable_identity()));
    one.deletion.set_reason(std::move(*note.mutable_reason()));
    return ++count < most;
  }));
  return bad;
}

}  // namespace

void Engine::NoteDeletion(const RunId& run, std::string identity, std::string reason) {
  const Deletion& deletion = deletions_.at(run);
  v1::DeletionNote note;
  note.set_namespace_(deletion.ns);
  note.set_workflow_id(deletion.workflow_id);
  note.set_workflow(deletion.last.workflow);
  note.set_status(deletion.last.status);
  note.set_close_time_ms(deletion.last.close_ms);
  note.set_identity(std::move(identity));
  note.set_reason(std::move(reason));
  Activate(deletion.shard)
      .rows.push_back(
          {keys::Deleted(deletion.shard, env_.clock->WallMs(), run), note.SerializeAsString()});
}

void Engine::ListDeletions(v1::ListDeletionsRequest request,
                           Reply<v1::ListDeletionsResponse> reply) {
  v1::ExecutionRef ref;
  ref.set_namespace_(request.namespace_());
  ref.set_workflow_id(request.workflow_id().empty() ? "any" : request.workflow_id());
  if (absl::Status status = CheckRef(ref); !status.ok()) return reply(status);
  request.set_namespace_(ref.namespace_());
  const std::string& token = request.page_token();
  const bool hex = std::all_of(token.begin(), token.end(), absl::ascii_isxdigit);
  const std::string after = hex ? absl::HexStringToBytes(token) : "";
  if (!token.empty() && !keys::DeletionOf(after)) {
    return reply(absl::InvalidArgumentError(
        "the page token is not one of a list of deletions: leave it out to begin anew"));
  }
  env_.background->Run(
      [this, request = std::move(request), after, reply = std::move(reply)]() mutable {
        const size_t size =
            request.page_size() == 0 ? kPageDefault : std::min(request.page_size(), kPageMax);
        std::vector<Found> found;
        absl::Status status;
        for (const Shard& shard : shards_) {
          if (!request.workflow_id().empty() &&
              shard.id != keys::ShardOf(request.namespace_(), request.workflow_id(),
                                        static_cast<uint32_t>(shards_.size()))) {
            continue;
          }
          status = Collect(env_.store->rows(), shard.id, request, after, size + 1, &found);
          if (!status.ok()) break;
        }
        std::sort(found.begin(), found.end(),
                  [](const Found& a, const Found& b) { return a.place < b.place; });
        v1::ListDeletionsResponse response;
        response.set_server_time_ms(env_.clock->WallMs());
        for (size_t i = 0; i < std::min(size, found.size()); ++i) {
          *response.add_deletions() = std::move(found[i].deletion);
        }
        if (found.size() > size) {
          response.set_next_page_token(std::string(absl::BytesToHexString(found[size - 1].place)));
        }
        Post([this, status, response = std::move(response), reply = std::move(reply)]() mutable {
          if (!status.ok()) {
            return ReplyWith<v1::ListDeletionsResponse>(std::move(reply), std::move(status));
          }
          ReplyWith<v1::ListDeletionsResponse>(std::move(reply), std::move(response));
        });
      });
}

}  // namespace flux::engine
