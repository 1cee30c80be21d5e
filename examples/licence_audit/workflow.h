// The audit as a workflow: list the files, take each through three tasks, put the answers together.
#ifndef LICENCE_AUDIT_WORKFLOW_H_
#define LICENCE_AUDIT_WORKFLOW_H_

#include <string>

#include "flux/workflow.h"
#include "tasks.h"

namespace licence_audit {

// Arguments: the directory, and the pace (kParse).
inline constexpr flux::Workflow<Report(std::string, int)> kLicenceAudit{
    "licence-audit",
    {.version = "1"},
    [](flux::Graph& g, flux::Value<std::string> root, flux::Value<int> pace_ms) {
      auto files = g.Call(kList, root);
      auto licences = g.Map(files, [&](flux::Value<std::string> file) {
                         auto parsed = g.Call(kParse, file, pace_ms);
                         auto findings = g.Call(kIdentify, parsed);
                         return g.Call(kNormalise, findings);
                       }).MaxParallel(64);
      return g.Call(kAggregate, licences);
    }};

}  // namespace licence_audit

#endif  // LICENCE_AUDIT_WORKFLOW_H_
