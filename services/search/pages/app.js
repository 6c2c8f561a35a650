// The search page.

import { searchPage } from "./search.js";
import { start } from "./shell.js";

start({
  openPage: searchPage,
  tokenHelp: [
    ["An operator of the job queue makes one: ", "python -m services.jobs tokens make NAME --role searcher"],
    ["A search service without a job queue says, when it starts, which file holds its token."],
  ],
  elsewhere: (me) => [["Queue", me.jobs_url]],
});
