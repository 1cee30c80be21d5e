#include "examples/licence_audit/licences.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "examples/licence_audit/audit.h"

namespace licence_audit {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::IsEmpty;

TEST(NormaliseExpression, KnowsDebiansNames) {
  const struct {
    const char* name;
    const char* spdx;
  } kTable[] = {
      {"", ""},
      {"GPL-2", "GPL-2.0-only"},
      {"GPL-2+", "GPL-2.0-or-later"},
      {"GPL-2.0+", "GPL-2.0-or-later"},
      {"GPLv3+", "GPL-3.0-or-later"},
      {"gpl-2.0-or-later", "GPL-2.0-or-later"},
      {"GPL-2.0-only", "GPL-2.0-only"},
      {"GPL", "GPL-1.0-or-later"},
      {"GPL-2 or later", "GPL-2.0-or-later"},
      {"LGPL", "LGPL-2.0-or-later"},
      {"LGPL-2.1", "LGPL-2.1-only"},
      {"LGPLv2.1+", "LGPL-2.1-or-later"},
      {"LPGL-2.1+", "LGPL-2.1-or-later"},
      {"AGPL-3", "AGPL-3.0-only"},
      {"GFDL-NIV-1.3+", "GFDL-1.3-no-invariants-or-later"},
      {"GFDL-1.2", "GFDL-1.2-only"},
      {"GPL-djd", "LicenseRef-GPL-djd"},
      {"GPL-7", "LicenseRef-GPL-7"},
      {"Expat", "MIT"},
      {"MIT/X11", "MIT"},
      {"BSD-3-clause", "BSD-3-Clause"},
      {"BSD-2-Clause", "BSD-2-Clause"},
      {"Apache-2", "Apache-2.0"},
      {"the Apache-2.0 license", "Apache-2.0"},
      {"CC0", "CC0-1.0"},
      {"public-domain", "LicenseRef-public-domain"},
      {"Artistic", "Artistic-1.0-Perl"},
      {"TinySCHEME", "LicenseRef-TinySCHEME"},
      {"a b/c", "LicenseRef-a-b-c"},
      {"???", "LicenseRef-unnamed"},
  };
  for (const auto& row : kTable) EXPECT_EQ(NormaliseExpression(row.name, {}), row.spdx) << row.name;
}

TEST(NormaliseExpression, KeepsDebiansPrecedence) {
  const struct {
    const char* expression;
    const char* spdx;
  } kTable[] = {
      {"GPL-1+ or Artistic", "Artistic-1.0-Perl OR GPL-1.0-or-later"},
      {"Artistic or GPL-1+", "Artistic-1.0-Perl OR GPL-1.0-or-later"},
      {"GPL-2 or GPL-2", "GPL-2.0-only"},
      {"LGPLv3+_or_GPLv2+", "GPL-2.0-or-later OR LGPL-3.0-or-later"},
      {"MIT and ISC or Zlib", "(ISC AND MIT) OR Zlib"},
      {"MPL-1.1 or LGPL-2.1+, and ISC", "ISC AND (LGPL-2.1-or-later OR MPL-1.1)"},
      {"MIT AND (ISC OR Zlib)", "(ISC OR Zlib) AND MIT"},
      {"MIT, ISC", "ISC AND MIT"},
      {"(MIT)", "MIT"},
      {"MIT or", "LicenseRef-MIT-or"},
      {"Kandor and Oregano", "LicenseRef-Kandor AND LicenseRef-Oregano"},
      {"GPL-2+ with Libtool exception", "GPL-2.0-or-later WITH Libtool-exception"},
      {"GPL-2 with Linux-syscall-note exception", "GPL-2.0-only WITH Linux-syscall-note"},
      {"Apache-2.0 with LLVM exception", "Apache-2.0 WITH LLVM-exception"},
      {"GPL-3+-WITH-BISON-EXCEPTION", "GPL-3.0-or-later WITH Bison-exception-2.2"},
      {"LGPL-2.1+ with staticLink exception",
       "LGPL-2.1-or-later WITH AdditionRef-staticlink-exception"},
  };
  for (const auto& row : kTable) {
    EXPECT_EQ(NormaliseExpression(row.expression, {}), row.spdx) << row.expression;
  }
}

TEST(NormaliseExpression, TakesAFilesOwnNamesFromItsTexts) {
  const LocalNames local = {{"mit-hp", "MIT"}, {"both", "Artistic-2.0 OR GPL-2.0-only"}};
  EXPECT_EQ(NormaliseExpression("mit-HP", local), "MIT");
  EXPECT_EQ(NormaliseExpression("Expat and mit-HP", local), "MIT");
  EXPECT_EQ(NormaliseExpression("both and ISC", local), "(Artistic-2.0 OR GPL-2.0-only) AND ISC");
}

TEST(NormaliseExpression, EndsOnDeepNesting) {
  const std::string deep = std::string(5'000, '(') + "MIT" + std::string(5'000, ')');
  EXPECT_FALSE(NormaliseExpression(deep, {}).empty());
}

TEST(AllOf, GroupsTheOtherOperatorOnly) {
  EXPECT_EQ(AllOf({}), "");
  EXPECT_EQ(AllOf({"ISC OR MIT"}), "ISC OR MIT");
  EXPECT_EQ(AllOf({"Zlib", "ISC OR MIT", "ISC AND 0BSD"}),
            "0BSD AND ISC AND (ISC OR MIT) AND Zlib");
}

TEST(IsIdentified, WantsOneKnownLicence) {
  EXPECT_TRUE(IsIdentified("MIT"));
  EXPECT_TRUE(IsIdentified("LicenseRef-a AND (LicenseRef-b OR MIT)"));
  EXPECT_TRUE(IsIdentified("LicenseRef-public-domain"));
  EXPECT_FALSE(IsIdentified("LicenseRef-a OR LicenseRef-b"));
  EXPECT_FALSE(IsIdentified(""));
}

TEST(RecogniseLicences, KnowsTheUsualWordings) {
  const struct {
    const char* text;
    std::vector<std::string> spdx;
  } kTable[] = {
      {"", {}},
      {"All rights reserved.", {}},
      {"This program is free software; you can redistribute it and/or modify it under the terms of "
       "the GNU General "
       "Public License as published by the Free Software Foundation; either version 2 of the "
       "License, or (at your "
       "option) any later version.",
       {"GPL-2.0-or-later"}},
      {"you can redistribute it under the terms of the GNU General Public License version 3. See "
       "the GNU General "
       "Public License for more details, or any later version of this notice.",
       {"GPL-3.0-only"}},
      {"under the terms of version 2 of the GNU General Public License", {"GPL-2.0-only"}},
      {"under the terms of the GNU Lesser General Public License as published by the FSF; either\n "
       "* version 2.1 of "
       "the License, or (at your option) any later version.",
       {"LGPL-2.1-or-later"}},
      {"You may distribute it under the terms of the GNU General Public License. The text is in "
       "/usr/share/common-licenses/GPL-3.",
       {"GPL-3.0-only"}},
      {"See `/usr/share/common-licenses/LGPL-2.1'.", {"LGPL-2.1-only"}},
      {"Licensed under the Apache License, Version 2.0 (the \"License\")", {"Apache-2.0"}},
      {"Permission is hereby granted, free of charge, to any person obtaining a copy of this "
       "software. The above "
       "copyright notice and this permission notice shall be included in all copies.",
       {"MIT"}},
      {"Redistribution and use in source and binary forms are permitted: 1. source code must "
       "retain 2. Redistributions "
       "in binary form must reproduce",
       {"BSD-2-Clause"}},
      {"Redistribution and use in source and binary forms: in binary form must reproduce. Neither "
       "the name may be used "
       "to endorse or promote products",
       {"BSD-3-Clause"}},
      {"Permission to use, copy, modify, and/or distribute this software for any purpose with or "
       "without fee is hereby "
       "granted, provided that the above copyright notice and this permission notice appear in all "
       "copies.",
       {"ISC"}},
      {"This is free software under the same terms as Perl itself.",
       {"Artistic-1.0-Perl OR GPL-1.0-or-later"}},
      {"I place this work in the public domain.", {"LicenseRef-public-domain"}},
      {"Distributed under the Boost Software License", {"BSL-1.0"}},
  };
  for (const auto& row : kTable) {
    EXPECT_THAT(RecogniseLicences(row.text), ElementsAreArray(row.spdx)) << row.text;
  }
}

TEST(RecogniseLicences, SeesThroughLineBreaksAndCommentMarks) {
  EXPECT_THAT(RecogniseLicences(" * Licensed under the Apache\n * License,   Version\t2.0\n"),
              ElementsAre("Apache-2.0"));
}

TEST(ParseCopyright, ReadsTheMachineReadableFormat) {
  const CopyrightFile file = ParseCopyright(
      "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n"
      "\n"
      "Files: *\n"
      "Copyright: 2001 Somebody\n"
      "License: GPL-2+\n"
      "\n"
      "Files: debian/*\n"
      "License: gpl-2+\n"
      " This package is free\n"
      " .\n"
      "\tsoftware.\n"
      "Comment: not this\n"
      " nor this\n"
      "\n"
      "License: Permission is hereby granted, free of charge\n"
      " to any person\n");
  EXPECT_TRUE(file.machine_readable);
  EXPECT_THAT(file.statements,
              ElementsAre(LicenceStatement{"GPL-2+", "This package is free software."},
                          LicenceStatement{
                              "", "Permission is hereby granted, free of charge to any person"}));
}

TEST(ParseCopyright, TakesFreeTextAsOneStatement) {
  const CopyrightFile file =
      ParseCopyright("It was debianized by me.\n\n  The licence:\r\n\tGPL\n");
  EXPECT_FALSE(file.machine_readable);
  EXPECT_THAT(file.statements,
              ElementsAre(LicenceStatement{"", "It was debianized by me. The licence: GPL"}));
}

TEST(ParseCopyright, TakesAnyBytes) {
  EXPECT_THAT(ParseCopyright("").statements, IsEmpty());
  EXPECT_THAT(ParseCopyright("\n \n").statements, IsEmpty());
  const CopyrightFile latin1 = ParseCopyright(
      "Jos\xe9\xff\n\x01 Garc\xc3\xad"
      "a");
  EXPECT_THAT(latin1.statements, ElementsAre(LicenceStatement{"", "Jos? ? Garc?a"}));
}

TEST(ParseCopyright, StopsAtItsLimits) {
  EXPECT_EQ(ParseCopyright(std::string(2 * kStatementBytesMax, 'a')).statements.at(0).text.size(),
            kStatementBytesMax);
  std::string many = "Format: x\n\n";
  for (size_t i = 0; i < kStatementsMax + 10; ++i) {
    many += "License: name-" + std::to_string(i) + "\n " + std::string(1'000, 'a') + "\n\n";
  }
  const CopyrightFile file = ParseCopyright(many);
  EXPECT_EQ(file.statements.size(), kStatementsMax);
  size_t bytes = 0;
  for (const LicenceStatement& statement : file.statements) bytes += statement.text.size();
  EXPECT_LE(bytes, kFileTextBytesMax);
  EXPECT_GT(bytes, kFileTextBytesMax / 2);
}

TEST(Audit, CountsFilesByLicence) {
  const Report report = Aggregate({{"/b", true, {"MIT", "ISC"}},
                                   {"/a", false, {"MIT"}},
                                   {"/z", false, {"LicenseRef-own"}},
                                   {"/y", true, {}}});
  EXPECT_EQ(report.files_read, 4);
  EXPECT_EQ(report.files_machine_readable, 2);
  EXPECT_THAT(report.files_unidentified, ElementsAre("/y", "/z"));
  EXPECT_EQ(ReportJson(report),
            "{\n  \"files_read\": 4,\n  \"files_machine_readable\": 2,\n  \"files_by_licence\": {\n"
            "    \"MIT\": 2,\n    \"ISC\": 1,\n    \"LicenseRef-own\": 1\n  },\n"
            "  \"files_unidentified\": [\n    \"/y\",\n    \"/z\"\n  ]\n}\n");
}

TEST(Audit, GoesFromTextToExpressions) {
  CopyrightFile parsed = ParseCopyright(
      "Format: x\nLicense: own and GPL-2+\n\nLicense: own\n Permission is hereby granted, free of "
      "charge, to any "
      "person obtaining a copy\n provided this permission notice stays\n");
  const FileLicences licences =
      Normalise(Identify({"/a", parsed.machine_readable, parsed.statements}));
  EXPECT_THAT(licences.licences, ElementsAre("GPL-2.0-or-later AND MIT", "MIT"));
}

TEST(Audit, SaysWhatItCannotRead) {
  EXPECT_EQ(ReadAndParse("/nowhere/copyright").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ListFiles("/nowhere").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ListFiles("/proc/self/fd").status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace licence_audit
