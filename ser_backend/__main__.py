from ser_backend.cli import main

raise SystemExit(main())
