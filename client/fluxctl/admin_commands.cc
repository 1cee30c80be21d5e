#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "client/fluxctl/commands.h"
#include "client/fluxctl/view.h"
#include "proto/bridge.h"

namespace flux::ctl {
namespace {

using v1::AdminService;
using v1::WorkflowService;

constexpr uint32_t kPageSize = 500;

}  // namespace

CommandResult ListWorkers(Context& context, const std::string& queue) {
  v1::ListWorkersRequest request;
  request.set_queue(queue);
  FLUX_ASSIGN_OR_RETURN(const v1::ListWorkersResponse response,
                        context.connection.Call(context.connection.admin(),
                                                &AdminService::Stub::ListWorkers, request));
  Listing listing(context, "workers");
  if (context.output != Output::kTable) {
    for (const v1::WorkerInfo& worker : response.workers()) listing.Add(ToJson(worker));
  } else if (response.workers().empty()) {
    context.console.Note(queue.empty() ? "no workers are connected"
                                       : absl::StrCat("no workers are connected to queue ", queue));
  } else {
    listing.Add(WorkersTable(response.workers(), context.Now()));
  }
  listing.Finish();
  return kExitOk;
}

CommandResult ListQueues(Context& context) {
  FLUX_ASSIGN_OR_RETURN(
      const v1::ListTaskQueuesResponse response,
      context.connection.Call(context.connection.admin(), &AdminService::Stub::ListTaskQueues,
                              v1::ListTaskQueuesRequest()));
  Listing listing(context, "queues");
  if (context.output != Output::kTable) {
    for (const v1::TaskQueueInfo& queue : response.queues()) listing.Add(ToJson(queue));
  } else if (response.queues().empty()) {
    context.console.Note("no task queues: neither a worker nor a waiting task");
  } else {
    listing.Add(QueuesTable(response.queues(), context.Now()));
  }
  listing.Finish();
  return kExitOk;
}

CommandResult ShowQueue(Context& context, const std::string& name) {
  v1::GetTaskQueueRequest request;
  request.set_name(name);
  FLUX_ASSIGN_OR_RETURN(const v1::GetTaskQueueResponse response,
                        context.connection.Call(context.connection.admin(),
                                                &AdminService::Stub::GetTaskQueue, request));
  if (context.output != Output::kTable) {
    context.Print(ToJson(response));
    return kExitOk;
  }
  context.Print(QueueBlock(response.queue(), context.Now()));
  if (!response.queue().tasks().empty()) {
    context.console.Out("\n");
    Table tasks = QueueTasksTable(response.queue());
    context.Print(tasks);
  }
  if (!response.workers().empty()) {
    context.console.Out("\n");
    Table workers = WorkersTable(response.workers(), context.Now());
    context.Print(workers);
  }
  return kExitOk;
}

CommandResult ListDefinitions(Context& context, const DefinitionOptions& options) {
  v1::ListDefinitionsRequest request;
  request.set_name(options.name);
  // This list alone does not tell the time that its ages are measured by.
  if (context.output == Output::kTable) FLUX_RETURN_IF_ERROR(context.AskNow().status());
  Listing listing(context, "definitions");
  uint64_t shown = 0;
  do {
    const uint64_t left = options.limit == 0 ? kPageSize : options.limit - shown;
    request.set_page_size(static_cast<uint32_t>(std::min<uint64_t>(left, kPageSize)));
    FLUX_ASSIGN_OR_RETURN(
        const v1::ListDefinitionsResponse page,
        context.connection.Call(context.connection.workflows(),
                                &WorkflowService::Stub::ListDefinitions, request));
    shown += static_cast<uint64_t>(page.definitions_size());
    if (context.output != Output::kTable) {
      for (const v1::DefinitionSummary& summary : page.definitions()) listing.Add(ToJson(summary));
    } else if (!page.definitions().empty()) {
      listing.Add(DefinitionsTable(page.definitions(), context.Now()));
    }
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty() && (options.limit == 0 || shown < options.limit));
  listing.Finish();
  if (shown == 0 && context.output == Output::kTable) context.console.Note("no definitions");
  return kExitOk;
}

CommandResult ShowDefinition(Context& context, const DefinitionOptions& options) {
  v1::GetDefinitionRequest request;
  request.set_name(options.name);
  request.set_version(options.version);
  if (!options.hash.empty()) {
    if (!IsHashPrefix(options.hash)) {
      return absl::InvalidArgumentError(
          absl::StrCat("--hash \"", options.hash,
                       "\" is not 6 to 64 hex digits; 'definition list' prints the hashes"));
    }
    FLUX_ASSIGN_OR_RETURN(const std::optional<std::string> hash,
                          FindHash(context, options.hash, options.name));
    if (!hash.has_value()) {
      return WithHint(
          absl::NotFoundError(absl::StrCat("no definition of \"", options.name,
                                           "\" has a hash that begins with ", options.hash)),
          "'fluxctl definition list' shows what the server knows");
    }
    request.set_definition_hash(*hash);
  }
  FLUX_ASSIGN_OR_RETURN(const v1::GetDefinitionResponse response,
                        context.connection.Call(context.connection.workflows(),
                                                &WorkflowService::Stub::GetDefinition, request));
  if (context.output != Output::kTable) {
    Json json;
    json["definition"] = DefinitionToJson(response.definition());
    json["summary"] = ToJson(response.summary());
    context.Print(json);
    return kExitOk;
  }
  context.Print(DefinitionBlock(response, context.Now()));
  context.console.Out("\n");
  Table table = DefinitionTable(response.definition(), context.console.out_theme().unicode);
  context.Print(table);
  return kExitOk;
}

CommandResult PutDefinition(Context& context, const std::string& path) {
  FLUX_ASSIGN_OR_RETURN(const std::string text, ReadInput(path));
  v1::PutDefinitionRequest request;
  FLUX_ASSIGN_OR_RETURN(
      *request.mutable_definition(),
      DefinitionFromJson(path == "-" ? "standard input" : Escape(path, Lines::kOne), text));
  FLUX_ASSIGN_OR_RETURN(const v1::PutDefinitionResponse response,
                        context.connection.Call(context.connection.workflows(),
                                                &WorkflowService::Stub::PutDefinition, request));
  for (const std::string& warning : response.warnings())
    context.console.Note(absl::StrCat("warning: ", warning));
  if (context.output != Output::kTable) {
    context.Print(ToJson(response));
    return kExitOk;
  }
  Table table;
  table.columns = {
      {.header = "NAME"}, {.header = "VERSION"}, {.header = "HASH"}, {.header = "STORED"}};
  table.rows.push_back({Cell(request.definition().name(), Style::kBold),
                        Cell(request.definition().version()),
                        Cell(absl::BytesToHexString(response.definition_hash())),
                        Cell(response.created() ? "yes" : "no, it was there already")});
  context.Print(table);
  return kExitOk;
}

CommandResult ShowServer(Context& context) {
  FLUX_ASSIGN_OR_RETURN(
      const v1::GetServerInfoResponse response,
      context.connection.Call(context.connection.admin(), &AdminService::Stub::GetServerInfo,
                              v1::GetServerInfoRequest()));
  if (context.output != Output::kTable) {
    context.Print(ToJson(response));
    return kExitOk;
  }
  context.Print(ServerBlock(response, context.Now()));
  if (!response.counters().empty()) {
    context.console.Out("\n");
    Table table = CountersTable(response);
    context.Print(table);
  }
  return kExitOk;
}

CommandResult VerifyWorkflow(Context& context, const TargetOptions& options) {
  v1::VerifyExecutionRequest request;
  *request.mutable_execution() = context.Ref(options.workflow_id, options.run_id);
  FLUX_ASSIGN_OR_RETURN(const v1::VerifyExecutionResponse response,
                        context.connection.Call(context.connection.admin(),
                                                &AdminService::Stub::VerifyExecution, request));
  if (context.output != Output::kTable) {
    context.Print(ToJson(response));
  } else if (response.equal()) {
    context.console.Out(absl::StrCat(Escape(options.workflow_id, Lines::kOne), ": ",
                                     response.records(),
                                     " records on disk rebuild the state in memory\n"));
  }
  if (response.equal()) return kExitOk;
  return absl::DataLossError(
      absl::StrCat(options.workflow_id, ": the state rebuilt from ", response.records(),
                   " records differs from the one in memory: ", response.difference()));
}

}  // namespace flux::ctl
