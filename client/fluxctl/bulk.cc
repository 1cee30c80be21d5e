#include "client/fluxctl/bulk.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/fluxctl/table.h"
#include "client/fluxctl/text.h"
#include "client/fluxctl/view.h"
#include "proto/bridge.h"

namespace flux::ctl {
namespace {

using v1::BulkService;
using v1::WorkflowService;

constexpr uint32_t kPageSize = 500;
constexpr uint32_t kPreviewRows = 10;
constexpr char kQueryError[] = "query, position ";  // how the server says where

std::string Capitalised(std::string text) {
  if (!text.empty()) {
    text[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(text[0])));
  }
  return text;
}

// What filters match, newest first: the whole listing, so that it is stable while we ask each.
absl::StatusOr<std::vector<v1::ExecutionInfo>> Matching(Context& context,
                                                        const v1::ExecutionFilter& filter) {
  std::vector<v1::ExecutionInfo> all;
  v1::ListExecutionsRequest request;
  *request.mutable_filter() = filter;
  request.set_page_size(kPageSize);
  do {
    absl::StatusOr<v1::ListExecutionsResponse> page = context.connection.Call(
        context.connection.workflows(), &WorkflowService::Stub::ListExecutions, request);
    if (!page.ok()) return ExplainQuery(page.status(), filter);
    for (v1::ExecutionInfo& info : *page->mutable_executions()) all.push_back(std::move(info));
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
  return all;
}

// Does every parenthesis and quote of the query have its other half?
bool Balanced(const std::string& query) {
  int open = 0;
  char quote = '\0';
  for (std::size_t i = 0; i < query.size(); ++i) {
    const char c = query[i];
    if (quote != '\0') {
      if (c == '\\') ++i;
      if (c == quote) quote = '\0';
    } else if (c == '"' || c == '\'') {
      quote = c;
    } else if (c == '(') {
      ++open;
    } else if (c == ')' && --open < 0) {
      return false;
    }
  }
  return open == 0 && quote == '\0';
}

// Both have to hold. One that is no query stays as it is, for the coordinator to refuse: in
// parentheses, it might mean something.
std::string BothQueries(const std::string& theirs, const std::string& ours) {
  if (ours.empty() || !Balanced(theirs)) return theirs;
  return theirs.empty() ? ours : absl::StrCat("(", theirs, ") and (", ours, ")");
}

std::string Executions(uint64_t count) {
  return absl::StrCat(count, count == 1 ? " execution" : " executions");
}

// Shows what a bulk operation would do and asks. True: go on.
absl::StatusOr<bool> ConfirmBulk(Context& context, bool yes, const std::string& verb,
                                 const v1::StartBulkOperationResponse& preview) {
  Console& console = context.console;
  Table table = ExecutionsTable(preview.first(), context.Now());
  std::string text = Render(console.err_theme(), table);
  const auto shown = static_cast<uint64_t>(preview.first_size());
  if (preview.matched() > shown) {
    absl::StrAppend(&text, "and ", preview.matched() - shown, " more\n");
  }
  console.FlushOut();
  console.Err(text);
  if (yes) return true;
  if (!console.can_ask()) {
    return WithHint(absl::InvalidArgumentError(
                        absl::StrCat("refusing to ", verb, " ", Executions(preview.matched()),
                                     " without asking, and there is no terminal to ask on")),
                    "-y (--yes) goes ahead without the question");
  }
  return console.Confirm(
      absl::StrCat(Capitalised(verb), " these ", Executions(preview.matched()), "?"));
}

absl::StatusOr<v1::StartBulkOperationResponse> CallStart(
    Context& context, const v1::StartBulkOperationRequest& request) {
  absl::StatusOr<v1::StartBulkOperationResponse> response = context.connection.Call(
      context.connection.bulks(), &BulkService::Stub::StartBulkOperation, request);
  if (response.ok()) return response;
  const absl::Status& status = response.status();
  const bool lost = absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status);
  if (lost && !request.preview() && context.connection.reached()) {
    return WithHint(status, "it may have begun: 'fluxctl bulk list' tells");
  }
  if (absl::IsResourceExhausted(status)) {
    return WithHint(status, "'fluxctl bulk list' shows them");
  }
  return ExplainQuery(status, request.filter());
}

// What filters find: the coordinator does it.
CommandResult ByFilter(Context& context, const BulkOptions& options, const BulkVerb& verb,
                       const v1::ExecutionFilter& filter) {
  v1::StartBulkOperationRequest request;
  *request.mutable_filter() = filter;
  *request.mutable_operation() = verb.operation;
  request.set_rate_per_second(options.rate.value_or(0));
  request.set_identity(Identity());
  request.set_reason(verb.reason);
  request.set_preview(true);
  request.set_preview_rows(kPreviewRows);
  FLUX_ASSIGN_OR_RETURN(const v1::StartBulkOperationResponse preview, CallStart(context, request));
  if (preview.matched() == 0) {
    std::string meant;
    if (options.filter.statuses.empty() && !verb.statuses.empty()) {
      absl::StrAppend(&meant, " that are ", absl::StrJoin(verb.statuses, ", "));
      if (!verb.query.empty()) absl::StrAppend(&meant, ", with ", verb.query);
      absl::StrAppend(&meant, "; --status asks for others");
    }
    context.console.Note(absl::StrCat("no executions match", meant));
    return kExitOk;
  }
  FLUX_ASSIGN_OR_RETURN(const bool go, ConfirmBulk(context, options.yes, verb.verb, preview));
  if (!go) {
    context.console.Note("nothing was done");
    return kExitOk;
  }
  // Nobody has agreed to what was started since it was shown.
  if (preview.first_size() > 0) {
    const int64_t newest = preview.first(0).start_time_ms() + 1;
    const int64_t before = filter.started_before_ms();
    request.mutable_filter()->set_started_before_ms(before == 0 ? newest
                                                                : std::min(before, newest));
  }
  request.set_preview(false);
  request.set_request_id(RandomId());  // makes our own repeats safe
  const InterruptGuard guard;
  FLUX_ASSIGN_OR_RETURN(const v1::StartBulkOperationResponse begun, CallStart(context, request));
  if (options.detach) {
    if (context.output == Output::kTable) {
      context.console.Out(absl::StrCat(Escape(begun.operation().id(), Lines::kOne), "\n"));
    } else {
      context.Print(ToJson(begun.operation()));
    }
    context.console.Note(absl::StrCat("it acts on ", Executions(begun.matched()),
                                      "; 'fluxctl bulk watch ", begun.operation().id(),
                                      "' follows it"));
    return kExitOk;
  }
  FLUX_ASSIGN_OR_RETURN(const v1::BulkOperation ended,
                        FollowBulk(context, begun.operation().id(), WatchTo::kErr, guard));
  return FinishBulk(context, ended);
}

absl::Status Check(const BulkOptions& options, const BulkVerb& verb) {
  const bool bulk = options.workflow_ids.empty();
  if (bulk && options.filter.empty()) {
    return absl::InvalidArgumentError(
        "name the workflow ids, or say which executions with --query, --workflow, --status, "
        "--id-prefix or --started-after");
  }
  if (!bulk && !options.filter.empty()) {
    return absl::InvalidArgumentError("give workflow ids or filters, not both");
  }
  if (!options.run_id.empty() && options.workflow_ids.size() != 1) {
    return absl::InvalidArgumentError("--run-id goes with exactly one workflow id");
  }
  if ((options.rate.has_value() || options.detach) && (!bulk || verb.dry_run)) {
    return absl::InvalidArgumentError(absl::StrCat(
        options.detach ? "--detach" : "--rate", " goes with filters, ",
        bulk ? "and not with --dry-run, which waits for each answer"
             : "for what the coordinator does; named workflows are done one by one, at once"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ExplainQuery(const absl::Status& status, const v1::ExecutionFilter& filter) {
  const std::string message(status.message());
  if (!absl::IsInvalidArgument(status) || !absl::StartsWith(message, kQueryError)) return status;
  const char* digits = message.c_str() + sizeof(kQueryError) - 1;
  const uint64_t position = std::strtoull(digits, nullptr, 10);
  if (position == 0 || position > filter.query().size() + 1) return status;
  return WithHint(status, PointAt(filter.query(), position - 1));
}

CommandResult OnExecutions(
    Context& context, const BulkOptions& options, const BulkVerb& verb,
    const std::function<absl::StatusOr<std::string>(const v1::ExecutionRef&)>& act) {
  FLUX_RETURN_IF_ERROR(Check(options, verb));
  const bool bulk = options.workflow_ids.empty();
  std::vector<v1::ExecutionRef> targets;
  for (const std::string& id : options.workflow_ids)
    targets.push_back(context.Ref(id, options.run_id));
  if (bulk) {
    FilterOptions filter_options = options.filter;
    if (filter_options.statuses.empty()) filter_options.statuses = verb.statuses;
    FLUX_ASSIGN_OR_RETURN(v1::ExecutionFilter filter, BuildFilter(context, filter_options));
    if (options.filter.statuses.empty()) {
      filter.set_query(BothQueries(filter.query(), verb.query));
    }
    if (!verb.dry_run) return ByFilter(context, options, verb, filter);
    FLUX_ASSIGN_OR_RETURN(const std::vector<v1::ExecutionInfo> matches, Matching(context, filter));
    if (matches.empty()) {
      context.console.Note("no executions match");
      return kExitOk;
    }
    for (const v1::ExecutionInfo& info : matches)
      targets.push_back(context.Ref(info.workflow_id(), info.run_id()));
  }

  // Outcomes are printed as they come: a thousand in, one may want to stop.
  Listing listing(context, "outcomes");
  ExitCode code = kExitOk;
  std::size_t failures = 0;
  for (const v1::ExecutionRef& ref : targets) {
    const absl::StatusOr<std::string> outcome = act(ref);
    const absl::Status status = outcome.status();
    const std::string done = outcome.ok() && !outcome->empty() ? *outcome : verb.past;
    if (!status.ok()) {
      ++failures;
      if (code == kExitOk) code = ExitCodeOf(status);
      // One execution makes an ordinary error; of several, each has its line.
      if (targets.size() == 1 && !bulk && context.output == Output::kTable) return status;
    }
    if (context.output == Output::kTable) {
      Table table;
      table.columns = {{.header = "WORKFLOW ID"}, {.header = "OUTCOME"}};
      table.widths = {24};
      table.rows.push_back(
          {Cell(ref.workflow_id(), Style::kBold),
           status.ok() ? Cell(done, Style::kGood) : Cell(Message(status), Style::kBad)});
      listing.Add(std::move(table));
    } else {
      listing.Add(
          Json{{"workflow_id", ref.workflow_id()},
               {"run_id", ref.run_id().empty() ? Json(nullptr) : Json(ref.run_id())},
               {"ok", status.ok()},
               {"detail", status.ok() ? Json(done) : Json(nullptr)},
               {"error", status.ok() ? Json(nullptr) : Json(std::string(Message(status)))}});
    }
    // Once the coordinator is gone every further one would fail alike, after a timeout each.
    if (absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status)) break;
  }
  listing.Finish();
  if (failures > 0) {
    context.console.Note(absl::StrCat(failures, " of ", targets.size(), " failed"));
  }
  return code;
}

}  // namespace flux::ctl
