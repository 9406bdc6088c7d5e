"""python -m daemon"""

import nirid_start

if __name__ == "__main__":
    nirid_start.main()
