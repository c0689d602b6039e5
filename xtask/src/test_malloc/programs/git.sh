# A repository with many commits: import, clone, log, blame, repack, check.
set -e
if [ "$1" = quick ]; then commits=1500; else commits=4000; fi
export GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=A GIT_AUTHOR_EMAIL=a@example.org
export GIT_COMMITTER_NAME=C GIT_COMMITTER_EMAIL=c@example.org
git config --global gc.auto 0
git config --global init.defaultBranch main
git config --global advice.detachedHead false

git init -q source
awk -v commits=$commits 'BEGIN {
    for (i = 1; i <= commits; i++) {
        print "commit refs/heads/main"
        printf "mark :%d\ncommitter C <c@example.org> %d +0000\n", i, 1600000000 + i * 60
        message = "commit number " i "\n"
        printf "data %d\n%s", length(message), message
        if (i > 1) print "from :" i - 1
        for (f = 0; f < 3; f++) {
            body = ""
            for (l = 0; l < 40; l++) body = body "line " l " of file " (i * 7 + f) % 97 " as of " (l % 5 == f ? i : int(i / 50)) "\n"
            printf "M 100644 inline folder%d/file%d.txt\ndata %d\n%s\n", (i + f) % 13, (i * 7 + f) % 97, length(body), body
        }
    }
}' | git -C source fast-import --quiet

git clone -q source copy 2>&1
git clone -q --no-local --depth 100 "file://$PWD/source" shallow 2>&1
cd copy
git log --oneline --stat | sha256sum
git log -p -300 | sha256sum
git log --graph --format='%h %an %ad %s' -- folder3 | tail -n 3
git blame folder5/file40.txt | head -n 5
git diff --stat HEAD~200 | tail -n 1
git rev-list --objects --all | sha256sum
for branch in one two three; do
    git checkout -q -b $branch HEAD~$((${#branch} * 10))
    echo "$branch" >> new.txt
    git add new.txt
    GIT_AUTHOR_DATE='1700000000 +0000' GIT_COMMITTER_DATE='1700000000 +0000' git commit -qm "branch $branch"
done
git checkout -q main
git merge -q --no-edit one -m merged > /dev/null && git ls-files | wc -l
git grep -c 'file 11' | sort | sha256sum
git gc --quiet --prune=now
git fsck --full 2> /dev/null
git count-objects -v | grep -E '^(count|in-pack|packs)'
git archive two | sha256sum
git -C ../shallow log --oneline | wc -l
