// workflow deletions: what is known of executions that are there no more.
#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "client/fluxctl/commands.h"
#include "client/fluxctl/view.h"
#include "proto/bridge.h"

namespace flux::ctl {
namespace {

using v1::WorkflowService;

constexpr uint64_t kPageSize = 1'000;

Table DeletionsTable(const v1::ListDeletionsResponse& page, absl::Time now) {
  Table table;
  table.columns = {{.header = "WORKFLOW ID", .shrink = true}, {.header = "RUN ID"},
                   {.header = "WORKFLOW", .shrink = true},    {.header = "STATUS"},
                   {.header = "DELETED", .right = true},      {.header = "BY", .shrink = true},
                   {.header = "WHY", .shrink = true}};
  for (const v1::DeletedExecution& one : page.deletions()) {
    table.rows.push_back(
        {Cell(one.workflow_id(), Style::kBold), Cell(one.run_id(), Style::kDim),
         Cell(one.workflow()),
         Cell(EnumName(*v1::ExecutionStatus_descriptor(), one.status()), StatusStyle(one.status())),
         Cell(AgeText(one.delete_time_ms(), now)), Cell(one.identity()), Cell(one.reason())});
  }
  return table;
}

}  // namespace

CommandResult ListDeletions(Context& context, const DeletionsOptions& options) {
  v1::ListDeletionsRequest request;
  request.set_namespace_(context.name_space);
  request.set_workflow_id(options.workflow_id);
  Listing listing(context, "deletions");
  uint64_t shown = 0;
  while (true) {
    const uint64_t left = options.limit == 0 ? kPageSize : options.limit - shown;
    request.set_page_size(static_cast<uint32_t>(std::min(left, kPageSize)));
    FLUX_ASSIGN_OR_RETURN(const v1::ListDeletionsResponse page,
                          context.connection.Call(context.connection.workflows(),
                                                  &WorkflowService::Stub::ListDeletions, request));
    shown += static_cast<uint64_t>(page.deletions_size());
    if (context.output == Output::kTable) {
      if (shown > 0) listing.Add(DeletionsTable(page, context.Now()));
    } else {
      for (const v1::DeletedExecution& one : page.deletions()) listing.Add(ToJson(one));
    }
    request.set_page_token(page.next_page_token());
    if (page.next_page_token().empty()) break;
    if (options.limit != 0 && shown >= options.limit) {
      context.console.Note(
          absl::StrCat("there are more than these ", shown, "; --limit 0 shows all"));
      break;
    }
  }
  listing.Finish();
  if (shown == 0 && context.output == Output::kTable) {
    context.console.Note("nobody had an execution deleted in the last 90 days");
  }
  return kExitOk;
}

}  // namespace flux::ctl
