#include "client/fluxctl/bulk.h"

#include <algorithm>
#include <cctype>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/fluxctl/table.h"
#include "client/fluxctl/text.h"
#include "client/fluxctl/view.h"
#include "proto/bridge.h"

namespace flux::ctl {
namespace {

using v1::WorkflowService;

constexpr uint32_t kPageSize = 500;
constexpr std::size_t kPreviewRows = 10;

std::string Capitalised(std::string text) {
  if (!text.empty()) {
    text[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(text[0])));
  }
  return text;
}

// What a bulk command's filters match, newest first: the whole listing, so that it is stable while
// we act on it.
absl::StatusOr<std::vector<v1::ExecutionInfo>> Matching(Context& context,
                                                        const v1::ExecutionFilter& filter) {
  std::vector<v1::ExecutionInfo> all;
  v1::ListExecutionsRequest request;
  *request.mutable_filter() = filter;
  request.set_page_size(kPageSize);
  do {
    FLUX_ASSIGN_OR_RETURN(v1::ListExecutionsResponse page,
                          context.connection.Call(context.connection.workflows(),
                                                  &WorkflowService::Stub::ListExecutions, request));
    for (v1::ExecutionInfo& info : *page.mutable_executions()) all.push_back(std::move(info));
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  return all;
}

// Shows what a bulk command would do and asks. True: go on.
absl::StatusOr<bool> ConfirmBulk(Context& context, const BulkOptions& options,
                                 const std::string& verb,
                                 const std::vector<v1::ExecutionInfo>& matches) {
  Console& console = context.console;
  google::protobuf::RepeatedPtrField<v1::ExecutionInfo> first;
  for (std::size_t i = 0; i < std::min(matches.size(), kPreviewRows); ++i)
    *first.Add() = matches[i];
  Table table = ExecutionsTable(first, context.Now());
  std::string preview = Render(console.err_theme(), table);
  if (matches.size() > kPreviewRows)
    absl::StrAppend(&preview, "and ", matches.size() - kPreviewRows, " more\n");
  console.FlushOut();
  console.Err(preview);
  if (options.yes) return true;
  if (!console.can_ask()) {
    return WithHint(absl::InvalidArgumentError(
                        absl::StrCat("refusing to ", verb, " ", matches.size(),
                                     matches.size() == 1 ? " execution" : " executions",
                                     " without asking, and there is no terminal to ask on")),
                    "-y (--yes) goes ahead without the question");
  }
  return console.Confirm(absl::StrCat(Capitalised(verb), " these ", matches.size(),
                                      matches.size() == 1 ? " execution?" : " executions?"));
}

}  // namespace

CommandResult ForEachExecution(
    Context& context, const BulkOptions& options, const BulkVerb& verb,
    const std::function<absl::StatusOr<std::string>(const v1::ExecutionRef&)>& act) {
  const bool bulk = options.workflow_ids.empty();
  if (bulk && options.filter.empty()) {
    return absl::InvalidArgumentError(
        "name the workflow ids, or say which executions with --workflow, --status, "
        "--id-prefix or --started-after");
  }
  if (!bulk && !options.filter.empty()) {
    return absl::InvalidArgumentError("give workflow ids or filters, not both");
  }
  if (!options.run_id.empty() && options.workflow_ids.size() != 1) {
    return absl::InvalidArgumentError("--run-id goes with exactly one workflow id");
  }
  std::vector<v1::ExecutionRef> targets;
  for (const std::string& id : options.workflow_ids)
    targets.push_back(context.Ref(id, options.run_id));
  if (bulk) {
    FilterOptions filter_options = options.filter;
    if (filter_options.statuses.empty()) filter_options.statuses = verb.statuses;
    FLUX_ASSIGN_OR_RETURN(const v1::ExecutionFilter filter,
                          BuildFilter(filter_options, context.name_space, context.Now()));
    FLUX_ASSIGN_OR_RETURN(const std::vector<v1::ExecutionInfo> matches, Matching(context, filter));
    if (matches.empty()) {
      context.console.Note("no executions match");
      return kExitOk;
    }
    if (!verb.harmless) {
      FLUX_ASSIGN_OR_RETURN(const bool go, ConfirmBulk(context, options, verb.verb, matches));
      if (!go) {
        context.console.Note("nothing was done");
        return kExitOk;
      }
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
