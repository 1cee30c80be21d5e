// Bulk operations: watched, listed, shown, cancelled.
#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/fluxctl/bulk.h"
#include "client/fluxctl/bulk_view.h"
#include "client/fluxctl/canvas.h"
#include "client/fluxctl/commands.h"
#include "client/fluxctl/live.h"
#include "client/fluxctl/view.h"
#include "proto/bridge.h"

namespace flux::ctl {
namespace {

using v1::BulkService;

constexpr absl::Duration kAnswerMax = absl::Seconds(2);  // it answers from memory
constexpr absl::Duration kPollMin = absl::Milliseconds(20);
constexpr absl::Duration kPollMax = absl::Milliseconds(500);
constexpr absl::Duration kSliceMax = absl::Milliseconds(50);  // an interrupt is noticed after it

// Shows a watched bulk operation.
class BulkViewer {
 public:
  BulkViewer(Context& context, WatchTo to) : context_(context), to_(to), canvas_(context, to) {}

  void Show(BulkProgress& progress, const v1::BulkOperation& operation) {
    const std::optional<std::string> news = progress.Update(operation, absl::Now());
    if (canvas_.live()) {
      Redraw(progress);
    } else if (news.has_value() && to_ == WatchTo::kOutJsonLines) {
      context_.Print(ToJson(operation));
      context_.console.FlushOut();
    } else if (news.has_value() && to_ != WatchTo::kNowhere) {
      canvas_.Line(*news);
    }
  }

  void Redraw(const BulkProgress& progress) {
    if (!canvas_.live() || !progress.started()) return;
    const Theme& theme = canvas_.Measure();
    canvas_.Draw({progress.View(theme)});
  }

  void Note(std::string_view text) { canvas_.Note(text); }
  void Close() { canvas_.Close(); }

 private:
  Context& context_;
  const WatchTo to_;
  Canvas canvas_;
};

// Until `until`, or an interrupt.
void WaitUntil(absl::Time until) {
  while (!InterruptGuard::Interrupted()) {
    const absl::Duration left = until - absl::Now();
    if (left <= absl::ZeroDuration()) return;
    absl::SleepFor(std::min(left, kSliceMax));
  }
}

std::string GoesOn(const std::string& id) {
  return absl::StrCat("bulk operation ", id, " goes on: 'fluxctl bulk watch ", id,
                      "' returns to it, 'fluxctl bulk cancel ", id, "' ends it");
}

absl::StatusOr<v1::BulkOperation> GetBulk(Context& context, const std::string& id) {
  v1::GetBulkOperationRequest request;
  request.set_id(id);
  absl::StatusOr<v1::GetBulkOperationResponse> response = context.connection.Call(
      context.connection.bulks(), &BulkService::Stub::GetBulkOperation, request);
  if (absl::IsNotFound(response.status())) {
    return WithHint(response.status(), "'fluxctl bulk list' shows what the server remembers");
  }
  if (!response.ok()) return response.status();
  return std::move(*response->mutable_operation());
}

}  // namespace

absl::StatusOr<v1::BulkOperation> FollowBulk(Context& context, const std::string& id, WatchTo to,
                                             const InterruptGuard& /*guard*/) {
  Connection& connection = context.connection;
  const absl::Time deadline = connection.deadline();
  BulkViewer viewer(context, to);
  BulkProgress progress;
  v1::GetBulkOperationRequest request;
  request.set_id(id);
  absl::Duration pause = kPollMin;
  bool lost = false;
  while (true) {
    grpc::ClientContext call;
    call.set_deadline(ToDeadline(std::min(deadline, absl::Now() + kAnswerMax)));
    // An address that never answered fails at once; one that did is waited for.
    call.set_wait_for_ready(connection.reached());
    v1::GetBulkOperationResponse response;
    const grpc::Status status = connection.bulks().GetBulkOperation(&call, request, &response);
    const bool away = Connection::IsLostConnection(status) ||
                      status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED;
    if (status.ok()) {
      connection.set_reached();
      connection.NoteTime(response);
      if (lost) viewer.Note(absl::StrCat("connected to ", connection.address(), " again"));
      lost = false;
      progress.set_connected(true);
      viewer.Show(progress, response.operation());
      if (HasEnded(response.operation())) {
        viewer.Close();
        return std::move(*response.mutable_operation());
      }
    } else if (!away || !connection.reached()) {
      viewer.Close();
      return absl::IsNotFound(connection.ToStatus(status))
                 ? WithHint(connection.ToStatus(status),
                            "'fluxctl bulk list' shows what the server remembers")
                 : connection.ToStatus(status);
    } else if (!lost && absl::Now() < deadline) {
      viewer.Note(absl::StrCat("lost the connection to ", connection.address(), "; trying again"));
      lost = true;
      progress.set_connected(false);
      viewer.Redraw(progress);
    }
    WaitUntil(std::min(deadline, absl::Now() + pause));
    pause = std::min(pause * 2, kPollMax);
    if (InterruptGuard::Interrupted()) {
      viewer.Close();
      context.console.Note(absl::StrCat("stopped watching; ", GoesOn(id)));
      return absl::CancelledError("interrupted");
    }
    if (absl::Now() >= deadline) {
      viewer.Close();
      return WithHint(
          absl::DeadlineExceededError(absl::StrCat(
              "bulk operation ", id, progress.started() ? " has not ended" : " has not answered",
              " at the end of --timeout", lost ? ", and fluxd is not to be reached" : "")),
          GoesOn(id));
    }
  }
}

ExitCode FinishBulk(Context& context, const v1::BulkOperation& operation, bool told) {
  if (!told && context.output != Output::kTable) context.Print(ToJson(operation));
  if (!told && context.output == Output::kTable) {
    Table outcome = BulkOutcomeTable(operation, context.Now());
    context.Print(outcome);
    if (!operation.errors().empty()) {
      context.console.Out("\n");
      Table errors = BulkErrorsTable(operation);
      context.Print(errors);
    }
  }
  const uint64_t undone = operation.refused() + operation.failed();
  const auto shown = static_cast<uint64_t>(operation.errors_size());
  if (undone > 0) {
    context.console.Note(absl::StrCat(
        operation.refused(), " refused and ", operation.failed(), " failed of ",
        operation.matched(),
        undone > shown ? absl::StrCat("; the first ", shown, " are shown") : std::string()));
  }
  const uint64_t met = operation.done() + undone;
  if (operation.state() == v1::BULK_STATE_COMPLETED && met < operation.matched()) {
    context.console.Note(
        absl::StrCat(operation.matched() - met, " did not match any more when their turn came"));
  }
  if (operation.state() != v1::BULK_STATE_COMPLETED) {
    context.console.Note(absl::StrCat(
        "bulk operation ", operation.id(), " ended early: ",
        operation.failure().empty() ? BulkStateName(operation.state()) : operation.failure()));
  }
  if (operation.state() == v1::BULK_STATE_FAILED || operation.failed() > 0) return kExitOther;
  if (operation.state() != v1::BULK_STATE_COMPLETED || operation.refused() > 0) {
    return kExitConflict;
  }
  return kExitOk;
}

CommandResult ListBulks(Context& context) {
  FLUX_ASSIGN_OR_RETURN(
      const v1::ListBulkOperationsResponse response,
      context.connection.Call(context.connection.bulks(), &BulkService::Stub::ListBulkOperations,
                              v1::ListBulkOperationsRequest()));
  std::vector<v1::BulkOperation> operations;
  for (const v1::BulkOperation& operation : response.operations()) {
    const bool ours =
        context.name_space.empty() || operation.filter().namespace_() == context.name_space;
    if (ours) operations.push_back(operation);
  }
  if (context.output != Output::kTable) {
    Listing listing(context, "operations");
    for (const v1::BulkOperation& operation : operations) listing.Add(ToJson(operation));
    listing.Finish();
  } else if (operations.empty()) {
    context.console.Note("no bulk operations");
  } else {
    Table table = BulksTable(operations, context.Now());
    context.Print(table);
  }
  return kExitOk;
}

CommandResult ShowBulk(Context& context, const std::string& id) {
  FLUX_ASSIGN_OR_RETURN(const v1::BulkOperation operation, GetBulk(context, id));
  if (context.output != Output::kTable) {
    context.Print(ToJson(operation));
    return kExitOk;
  }
  context.Print(BulkBlock(operation, context.Now()));
  if (operation.errors().empty()) return kExitOk;
  context.console.Out("\n");
  Table errors = BulkErrorsTable(operation);
  context.Print(errors);
  return kExitOk;
}

CommandResult WatchBulk(Context& context, const std::string& id) {
  // A document comes once, at the end; until then progress is a note.
  const bool lines = context.output == Output::kJsonLines;
  const WatchTo to = lines ? WatchTo::kOutJsonLines : WatchTo::kErr;
  const InterruptGuard guard;
  FLUX_ASSIGN_OR_RETURN(const v1::BulkOperation ended, FollowBulk(context, id, to, guard));
  return FinishBulk(context, ended, /*told=*/lines);
}

CommandResult CancelBulk(Context& context, const std::string& id) {
  v1::CancelBulkOperationRequest request;
  request.set_id(id);
  request.set_identity(Identity());
  // Sent again after it was done it would be refused, so it is sent once.
  absl::StatusOr<v1::CancelBulkOperationResponse> response = context.connection.CallOnce(
      context.connection.bulks(), &BulkService::Stub::CancelBulkOperation, request);
  if (absl::IsNotFound(response.status())) {
    return WithHint(response.status(), "'fluxctl bulk list' shows what the server remembers");
  }
  if (!response.ok()) return response.status();
  const v1::BulkOperation& operation = response->operation();
  if (context.output != Output::kTable) {
    context.Print(ToJson(operation));
  } else {
    Table table = BulkOutcomeTable(operation, context.Now());
    context.Print(table);
  }
  context.console.Note("what is done stays done");
  return kExitOk;
}

}  // namespace flux::ctl
